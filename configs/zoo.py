"""The trained models that ship with the library, as zoo:NAME; tools/zoo.sh trains and packs them.

  car-jax prepare lidc_masks --size 64
  car-jax train --config configs/zoo.py:mose-lidc-masks --workdir runs/zoo/mose-lidc-masks
  car-jax export runs/zoo/mose-lidc-masks --format hub --out car_jax/zoo/mose-lidc-masks

The nets of configs/demo.py, configs/segmenters_street_scenes.py and configs/sac_street_scenes.py,
trained for longer and on all images; every model has at most 2.1 MB. Variants:

  mose-lidc-masks, car-lidc-masks, deterministic-lidc-masks   lesions whose readers disagree
  segformer-street-scenes, deeplabv3plus-street-scenes        drawn streets in clear air
  sac-street-scenes                                           the same, adapted to snow
  abn-street-scenes                                           where that begins; it does not ship
"""

from car_jax import variants
from car_jax.configs import demo, sac_street_scenes, segmenters_street_scenes

ROOT = 'runs/zoo'
STEPS = {
  'mose-lidc-masks': 3_000,
  'car-lidc-masks': 3_000,
  'deterministic-lidc-masks': 3_000,
  'segformer-street-scenes': 3_000,
  'deeplabv3plus-street-scenes': 3_000,
  'abn-street-scenes': 900,
  'sac-street-scenes': 300,
}
VARIANTS = (*STEPS,)


def lesions(which):
  c = demo.get_config(which)
  if which == 'deterministic':
    c.method.optim.update(milestones=(3,), factor=0.3)  # epochs of 778 steps
  c.report.split = 'test[:960]'
  return c


def streets(which):
  c = segmenters_street_scenes.get_config(which)
  c.data.train = 'train'
  c.method.optim.update(milestones=(40, 54), factor=0.3)  # epochs of 50 steps
  c.best = 'val/nll[own]:min'
  return c


def snow(which):
  c = sac_street_scenes.get_config(which)
  c.method.model.stem_channels = 9  # the adapted model brings its teacher
  if which == 'sac':
    c.init.net = f'{ROOT}/abn-street-scenes:net'
  return c


def get_config(variant='mose-lidc-masks'):
  variants.check('zoo', variant, VARIANTS)
  which, _, data = variant.partition('-')
  if data == 'lidc-masks':
    c = lesions(which)
  else:
    c = snow(which) if which in sac_street_scenes.METHODS else streets(which)
  c.steps, c.log_every, c.eval_every, c.save_every = STEPS[variant], 50, 250, 250
  return c
