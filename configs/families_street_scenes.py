"""The families of ambiguous segmentation on drawn streets with random class flips, 64x128.

  car-jax prepare street_scenes --height 64
  car-jax train --config configs/families_street_scenes.py:ssn --workdir runs/families_streets/ssn

Data and scores of configs/mose_street_scenes.py: 32 modes, whose probabilities are known, and a
black-box prediction. Variants `:ssn`, `:prob_unet`, `:phiseg`, `:ccdm` and `:flow_matching`; on
two CPU cores.
"""

from typing import Any

from car_jax.configs import mose_street_scenes
from car_jax.errors import UserError, nearest

WIDTHS = (16, 24, 32, 48)
GUIDED = dict(
  name='guided_unet', widths=(16, 24, 32, 48), blocks=1, attention=(8,), head_width=16, groups=8
)
ADAM = dict(lr=1e-3, ema=0.99)
METHODS: dict[str, dict[str, Any]] = dict(
  ssn=dict(
    name='ssn', model=dict(name='unet', widths=WIDTHS), optim=dict(lr=1e-3), rank=10, samples=10
  ),
  prob_unet=dict(
    name='prob_unet',
    model=dict(name='prob_unet', widths=WIDTHS, latent=8),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    beta=1.0,
  ),
  phiseg=dict(
    name='phiseg',
    model=dict(name='phiseg', widths=WIDTHS, levels=3),
    optim=dict(lr=1e-3, weight_decay=1e-5),
  ),
  ccdm=dict(name='ccdm', model=GUIDED, optim=ADAM, diffusion_steps=25),
  flow_matching=dict(
    name='flow_matching',
    model=GUIDED | dict(scale_shift=True, resampling='pooling'),
    optim=ADAM,
    solver='euler',
    sampling_steps=10,
    time_scale=100.0,
  ),
)
MANY_PASSES = ('ccdm', 'flow_matching')
OBSERVED = ('channels', 'pixel_mean', 'pixel_std', 'black_box')


def get_config(variant='ssn'):
  if variant not in METHODS:
    raise UserError(
      f'configs/families_street_scenes.py has no variant {variant!r}\n{nearest(variant, METHODS)}'
    )
  c = mose_street_scenes.get_config()
  c.method = METHODS[variant] | {key: c.method[key] for key in OBSERVED}
  if variant in MANY_PASSES:  # of the net for each sample: fewer images are scored
    c.eval_every, c.evals.val.split, c.report.split = 1_000, 'validation[:8]', 'test[:16]'
  return c
