"""The families of ambiguous segmentation at laptop size, 64x64: minutes each on two CPU cores.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/families_lidc_masks.py:ssn --workdir runs/families/ssn

Data of configs/demo.py. Variants `:car`, `:mose`, `:ssn`, `:prob_unet`, `:phiseg`, `:ccdm`,
`:flow_matching`; `:deterministic`, a net with dropout, whose likeliest classes, independent pixels,
dropout and mirrored copies are predictors (docs/families.md); and `:member`, one of MEMBERS such
nets of an ensemble, which together train as long. All train for TIME on the same images, and the
report is one of all of them: `make demo-families`. Chains of CCDM and steps of flows are few, since
a sample costs as many passes of the net. `:ssn_hour` and the like train for an HOUR: `make
demo-families LONGER=_hour FAM=runs/families_hour`.
"""

from ml_collections import ConfigDict

from car_jax import variants
from car_jax.configs import demo
from car_jax.configs._families import NORM, methods

TIME = 450.0  # seconds of a core that does 33 GFLOP/s, of a method
HOUR = 3600.0  # the same, of a longer run
MEMBERS = 4
SMALL = methods((12, 24, 36, 48), guided=(8, 16, 32, 48))
SMALL['ssn'] |= dict(mean_steps=400)
MOSE = demo.METHODS['mose']
SMALL |= dict(mose=MOSE | dict(model=MOSE['model'] | NORM))
METHODS = demo.METHODS | SMALL | dict(member=demo.METHODS['deterministic'])
VARIANTS = {name: (name, TIME) for name in METHODS}
VARIANTS |= {f'{name}_hour': (name, HOUR) for name in METHODS}
# Of that core, a step of 12 images, measured (2026-11-30); an ensemble's members share TIME.
SECONDS = dict(
  car=1.04, mose=1.06, ssn=0.628, prob_unet=0.878, phiseg=1.32, ccdm=0.579, flow_matching=0.508,
  deterministic=0.38, member=0.38 * MEMBERS,
)  # fmt: skip


def get_config(variant: str = 'ssn') -> ConfigDict:
  variants.check('families_lidc_masks', variant, VARIANTS)
  name, seconds = VARIANTS[variant]
  c = demo.get_config()
  c.method = METHODS[name]
  c.steps = round(seconds / SECONDS[name])
  c.eval_every = c.save_every = -(-c.steps // 4)
  c.evals.val.split = 'validation[:32]'
  c.data.eval_batch = 2  # pages predict what they show once more, by whole batches
  c.report = dict(split='test[:48]', samples=100)
  c.report.metrics = (
    *('ged16', 'ged16[u]', 'ged50', 'ged50[u]', 'ged100', 'ged100[u]'),
    *('hm_iou16', 'dice_max16', 'dice_match16', 'diversity16', 'ece', 'nll'),
  )
  return c
