"""The families of ambiguous segmentation at laptop size, 64x64: minutes each on two CPU cores.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/families_lidc_masks.py:ssn --workdir runs/families/ssn

Data of configs/demo.py. Variants `:car`, `:mose`, `:ssn`, `:prob_unet`, `:phiseg`;
`:deterministic`, a net with dropout, whose likeliest classes, independent pixels, dropout and
mirrored copies are predictors (docs/families.md); and `:member`, one of MEMBERS such nets of an
ensemble, which together train as long. All train for TIME on the same images, and the report is one
of all of them: `make demo-families`.
"""

from ml_collections import ConfigDict

from car_jax.configs import demo
from car_jax.errors import UserError, nearest

TIME = 150.0  # seconds of a CPU core, of a method
MEMBERS = 4
WIDTHS = (12, 24, 36, 48)
METHODS = demo.METHODS | dict(
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
  member=demo.METHODS['deterministic'],
)
# Of a CPU core, a step of 12 images, measured (2026-11-29); an ensemble's members share TIME.
SECONDS = dict(
  car=0.36, mose=0.285, ssn=0.18, prob_unet=0.194, phiseg=0.322, deterministic=0.122,
  member=0.122 * MEMBERS,
)  # fmt: skip


def get_config(variant: str = 'ssn') -> ConfigDict:
  if variant not in METHODS:
    raise UserError(
      f'configs/families_lidc_masks.py has no variant {variant!r}\n{nearest(variant, METHODS)}'
    )
  c = demo.get_config()
  c.method = METHODS[variant]
  c.steps = round(TIME / SECONDS[variant])
  c.eval_every = c.save_every = -(-c.steps // 4)
  c.evals.val.split = 'validation[:64]'
  c.report = dict(split='test[:160]', samples=100)
  c.report.metrics = (
    *('ged16', 'ged16[u]', 'ged50', 'ged50[u]', 'ged100', 'ged100[u]'),
    *('hm_iou16', 'dice_max16', 'dice_match16', 'diversity16', 'ece', 'nll'),
  )
  return c
