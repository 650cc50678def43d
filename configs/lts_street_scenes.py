"""Local temperature scaling on drawn street scenes, 64x128: minutes on two CPU cores.

  car-jax prepare street_scenes --height 64
  car-jax train --config configs/lts_street_scenes.py:segmenter --workdir runs/street_scenes
  car-jax train --config configs/lts_street_scenes.py --workdir runs/lts_street_scenes
  car-jax calibrate runs/lts_street_scenes --out lts.npz

The temperatures are learnt on the validation images: on those it was trained on, the segmenter is
right too often. For a segmenter of another folder set --config.init.segmenter=FOLDER:net.
"""

from ml_collections import ConfigDict

from car_jax import variants

SEGMENTER = dict(name='toy_calnet', hidden=24, dropout=0.05)
METHODS = dict(
  segmenter=dict(
    name='supervised',
    model=SEGMENTER,
    optim=dict(lr=2e-3, weight_decay=5e-4, milestones=(16,), factor=0.2),
  ),
  lts=dict(name='lts', segmenter=SEGMENTER, optim=dict(lr=1e-4)),
)
VARIANTS = (*METHODS,)


def get_config(variant='lts'):
  variants.check('lts_street_scenes', variant, VARIANTS)
  c = ConfigDict()
  c.method = METHODS[variant]
  c.data = dict(name='street_scenes/height64', size=64, batch=6, eval_batch=4)
  c.data.crop, c.data.mirror, c.data.eval_size = 'random', True, 0
  c.log_every, c.seed = 50, 0
  metrics = ('ece[own,top]', 'nll[own]', 'miou[own]')
  spec = dict(samples=1, absent='skip')
  if variant == 'segmenter':
    c.steps, c.eval_every, c.save_every = 2_000, 500, 500
    c.evals = dict(val=spec | dict(split='validation[:32]', metrics=metrics))
  else:
    c.init = dict(segmenter='runs/street_scenes:net')
    c.data.train, c.data.size, c.data.batch = 'validation', 0, 4  # four whole images at a time
    c.data.crop, c.data.mirror = 'centre', False
    c.steps, c.eval_every, c.save_every = 1_000, 500, 500
    c.evals = dict(test=spec | dict(split='test[:32]', metrics=metrics))
  c.report = spec | dict(split='test', metrics=metrics)
  return c
