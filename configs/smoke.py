"""Every method at toy size on data made in memory, seconds on a laptop.

python train.py --config configs/smoke.py:car --workdir runs/smoke
"""

from ml_collections import ConfigDict

from car_jax.errors import UserError, nearest

ADAM = dict(b1=0.5, b2=0.99, weight_decay=5e-4)
SEGNET = dict(name='segnet', widths=(8, 8, 16), depths=(1, 1, 1))
METHODS = dict(
  car=dict(
    name='car',
    calnet=SEGNET,
    generator=dict(name='unet_generator', hidden=8, latent=4),
    discriminator=dict(name='pixel_discriminator', hidden=8),
    optim=dict(
      calnet=ADAM | dict(lr=2e-4),
      generator=ADAM | dict(lr=2e-4),
      discriminator=ADAM | dict(lr=1e-5),
    ),
    samples=3,
    critic_steps=2,
    rest_steps=2,
  ),
  lts=dict(name='lts', segmenter=SEGNET, optim=dict(lr=1e-3)),
  mose=dict(
    name='mose',
    model=dict(name='mose', widths=(8, 8, 16, 16), latent=1, experts=3),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    samples=(2,),
  ),
  supervised=dict(name='supervised', model=SEGNET, optim=dict(lr=2e-4)),
  segformer=dict(
    name='supervised',
    model=dict(name='segformer', widths=(8, 8, 15, 16), depths=(1, 1, 1, 1), features=16),
    optim=dict(lr=1e-3),
    crop=24,
    stride=16,
  ),
  deeplabv3plus=dict(
    name='supervised',
    model=dict(
      name='deeplabv3plus',
      depth=18,
      stem_channels=8,
      blocks=(1, 1, 1, 1),
      features=16,
      low_features=8,
    ),
    optim=dict(lr=1e-3),
  ),
)


def get_config(variant='car'):
  if variant not in METHODS:
    raise UserError(f'configs/smoke.py has no variant {variant!r}\n{nearest(variant, METHODS)}')
  c = ConfigDict()
  c.method = METHODS[variant]
  c.data = dict(name='fake', data_dir='', size=32, batch=8, flip=True, rot90=True)
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 6, 2, 4, 2, 0
  c.evals = dict(val=dict(split='validation', samples=4, metrics=('ged4',)))
  c.best = 'val/ged4:min'
  c.report = dict(split='test', samples=4, metrics=('ged4', 'hm_iou4', 'ece'))
  return c
