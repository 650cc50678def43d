"""The families of ambiguous segmentation at laptop size, 64x64: minutes each on two CPU cores.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/families_lidc_masks.py:ssn --workdir runs/families/ssn

Data and scores of configs/demo.py, which has CAR and MoSE. Variants `:ssn`, `:prob_unet` and
`:phiseg`; and `:dropout`, a deterministic net whose dropout, ensembles and mirrored copies are
predictors (see docs/families.md).
"""

from car_jax.configs import demo
from car_jax.errors import UserError, nearest

WIDTHS = (12, 24, 36, 48)
METHODS = dict(
  ssn=dict(
    name='ssn', model=dict(name='unet', widths=WIDTHS), optim=dict(lr=1e-3), rank=10, samples=20
  ),
  prob_unet=dict(
    name='prob_unet',
    model=dict(name='prob_unet', widths=WIDTHS, latent=6),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    beta=1.0,
  ),
  phiseg=dict(
    name='phiseg',
    model=dict(name='phiseg', widths=WIDTHS, levels=3),
    optim=dict(lr=1e-3, weight_decay=1e-5),
  ),
  dropout=demo.METHODS['deterministic'],
)


def get_config(variant='ssn'):
  if variant not in METHODS:
    raise UserError(
      f'configs/families_lidc_masks.py has no variant {variant!r}\n{nearest(variant, METHODS)}'
    )
  c = demo.get_config('mose')
  c.method = METHODS[variant]
  return c
