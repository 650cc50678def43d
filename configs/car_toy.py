"""CAR on the paper's 1-D regression (arXiv 2006.13144, section 5.1). About a minute on a CPU.

  python train.py --config configs/car_toy.py --workdir runs/car_toy

The log likelihood in metrics.jsonl rises from -20 to about 2. Both figures of the paper:
python -m car_jax.studies.toy_regression --out runs/toy_figures
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.method = dict(name='car_toy', calibration=1.0, samples=10, pretraining=1500, points=100)
  c.method.update(dict(lr=1e-4, pi=0.9, sigma=0.03))
  c.data = dict(name='toy_regression', batch=1000, pi=0.9, sigma=0.03)
  c.steps, c.log_every, c.save_every, c.seed = 6500, 10, 1000, 999
  return c
