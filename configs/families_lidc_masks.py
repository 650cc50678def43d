"""The families of ambiguous segmentation at laptop size, 64x64: minutes each on two CPU cores.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/families_lidc_masks.py:ssn --workdir runs/families/ssn

Data of configs/demo.py. Variants `:car`, `:mose`, `:ssn`, `:prob_unet`, `:phiseg`, `:ccdm`,
`:flow_matching`; `:deterministic`, a net with dropout, whose likeliest classes, independent pixels,
dropout and mirrored copies are predictors (docs/families.md); and `:member`, one of MEMBERS such
nets of an ensemble, which together train as long. All train for TIME on the same images, and the
report is one of all of them: `make demo-families`. Chains of CCDM and steps of flows are few, since
a sample costs as many passes of the net.
"""

from ml_collections import ConfigDict

from car_jax.configs import demo
from car_jax.configs._families import methods
from car_jax.errors import UserError, nearest

TIME = 140.0  # seconds of a CPU core, of a method
MEMBERS = 4
SMALL = methods((12, 24, 36, 48), guided=(8, 16, 32, 48))
SMALL['ssn'] |= dict(mean_steps=400)  # else many samples turn the background over for long
METHODS = demo.METHODS | SMALL | dict(member=demo.METHODS['deterministic'])
# Of a CPU core, a step of 12 images, measured (2026-11-29); an ensemble's members share TIME.
SECONDS = dict(
  car=0.36, mose=0.285, ssn=0.14, prob_unet=0.196, phiseg=0.322, ccdm=0.156, flow_matching=0.139,
  deterministic=0.122, member=0.122 * MEMBERS,
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
  c.evals.val.split = 'validation[:32]'
  c.data.eval_batch = 2  # pages predict what they show once more, by whole batches
  c.report = dict(split='test[:48]', samples=100)
  c.report.metrics = (
    *('ged16', 'ged16[u]', 'ged50', 'ged50[u]', 'ged100', 'ged100[u]'),
    *('hm_iou16', 'dice_max16', 'dice_match16', 'diversity16', 'ece', 'nll'),
  )
  return c
