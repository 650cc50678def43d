"""CAR on the 1-D bimodal regression (arXiv 2006.13144, section 5.1): a minute on a laptop.

  car-jax train --config configs/car_toy.py --workdir runs/car_toy

Expected: `log_likelihood` near 2.0 at the end (metrics.jsonl, TensorBoard). Nothing is evaluated:
the likelihood is exact. Both figures: python -m car_jax.studies.toy_regression --out runs/toy
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.method = dict(
    name='car_toy',
    calibration_steps=1500,
    refine_batch=100,
    calibration_weight=1.0,  # 0: a plain conditional GAN, which may lose a branch
    samples=10,
    hidden=(64, 64, 64, 64),
    optim=dict(lr=1e-4),
    ll_every=10,
    ll_points=2000,
  )
  c.data = dict(name='toy_regression', batch=1000, pi=0.9, sigma=0.03)
  c.steps, c.log_every, c.save_every, c.seed = 6500, 10, 1000, 0
  return c
