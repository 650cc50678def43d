"""Every method at toy size on data made in memory, seconds on a laptop.

car-jax train --config configs/smoke.py:car --workdir runs/smoke
"""

from ml_collections import ConfigDict

from car_jax import variants

ADAM = dict(b1=0.5, b2=0.99, weight_decay=5e-4)
SEGNET = dict(name='segnet', widths=(8, 8, 16), depths=(1, 1, 1))
DEEPLABV2 = dict(name='deeplabv2_resnet', stem_channels=8, blocks=(1, 1, 1, 1), rates=(1, 2, 3, 4))
GUIDED = dict(name='guided_unet', widths=(8, 8), blocks=1, attention=(2,), head_width=0, groups=4)
SGD = dict(name='sgd', lr=1e-3, weight_decay=5e-4)
TWO_DOMAINS = dict(
  train='adaptation',
  source=dict(name='fake', size=(32, 32), scale=(0.75, 1.25), renormalise=True),
  target=dict(groups=2, views=4, size=(32, 32), zoom=(0.5, 1.0), blur=(0.1, 1.0)),
)
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
  ssn=dict(
    name='ssn',
    model=dict(name='unet', widths=(8, 8, 16)),
    optim=dict(lr=1e-3),
    rank=3,
    samples=4,
  ),
  prob_unet=dict(
    name='prob_unet',
    model=dict(name='prob_unet', widths=(8, 8, 16), latent=2),
    optim=dict(lr=1e-3, weight_decay=1e-5),
  ),
  phiseg=dict(
    name='phiseg',
    model=dict(name='phiseg', widths=(8, 8, 16), levels=2),
    optim=dict(lr=1e-3, weight_decay=1e-5),
  ),
  ccdm=dict(name='ccdm', model=GUIDED, optim=dict(lr=1e-3), diffusion_steps=4),
  flow_matching=dict(
    name='flow_matching',
    model=GUIDED | dict(scale_shift=True, resampling='pooling'),
    optim=dict(lr=1e-3),
    solver='euler',
    sampling_steps=4,
  ),
  supervised=dict(name='supervised', model=SEGNET, optim=dict(lr=2e-4)),
  abn=dict(name='abn', model=DEEPLABV2, optim=SGD),
  sac=dict(name='sac', model=DEEPLABV2, optim=SGD, views=4, teacher_period=2),
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
VARIANTS = (*METHODS,)


def get_config(variant='car'):
  variants.check('smoke', variant, VARIANTS)
  c = ConfigDict()
  c.method = METHODS[variant]
  c.data = dict(name='fake', size=32, batch=8, mirror=True, rot90=True)
  if variant in ('abn', 'sac'):
    c.data = dict(name='fake', size=32, batch=8) | TWO_DOMAINS
  if variant == 'abn':
    c.data.target = dict(groups=8, views=0, size=(32, 32), scale=(0.75, 1.25), jitter=0.4)
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 6, 2, 4, 2, 0
  c.evals = dict(val=dict(split='validation', samples=4, metrics=('ged4',)))
  c.best = 'val/ged4:min'
  c.report = dict(split='test', samples=4, metrics=('ged4', 'hm_iou4', 'ece'))
  return c
