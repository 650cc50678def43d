"""CAR on LIDC, the published setting (arXiv 2006.13144): 180x180 crops, four readers, 128x128.

  car-jax prepare lidc_crops --source FOLDER
  car-jax train --config configs/car_lidc.py --workdir runs/car_lidc

PUBLISHED has what is published on this split. One epoch is 276 steps; the authors trained for five
days on one 16 GB GPU. As there, the encoder of the calibration net can start from ImageNet's
weights, of torchvision's file (a download); where none is given it starts as VGG does, from random
ones:

  car-jax import torchvision vgg19_bn-c79401a0.pth \\
    --config configs/car_lidc.py:calnet --out runs/vgg19
  car-jax train --config configs/car_lidc.py --workdir runs/car_lidc \\
    --config.init.calnet=runs/vgg19:net

Variant `:calnet` is the calibration net alone, by cross entropy. All of it, step by step and beside
the published scores: car-jax reproduce lidc-car --source FOLDER --imagenet vgg19_bn-c79401a0.pth
"""

from ml_collections import ConfigDict

from car_jax import variants
from car_jax.configs._published import CCDM, FOUR_READERS, paper, publish

VARIANTS = ('car', 'calnet')
V2 = dict(source=f'CAR, {CCDM}: LIDC, split v2', convention=FOUR_READERS)
PUBLISHED = dict(
  ged16=paper('ged16', 0.264, 0.002, **V2),
  ged50=paper('ged50', 0.248, 0.004, **V2),
  ged100=paper('ged100', 0.243, 0.004, **V2),
  hm_iou16=paper('hm_iou16', 0.592, 0.005, **V2),
)


def get_config(variant='car'):
  variants.check('car_lidc', variant, VARIANTS)
  c = ConfigDict()
  adam = dict(b1=0.5, b2=0.99, weight_decay=5e-4)
  c.method = dict(
    name='car',
    calnet=dict(name='segnet'),
    generator=dict(name='unet_generator', hidden=32, latent=8),
    discriminator=dict(name='pixel_discriminator', hidden=64),
    optim=dict(
      calnet=adam | dict(lr=2e-4, milestones=(250, 500)),
      generator=adam | dict(lr=2e-4, milestones=(100, 300, 500)),
      discriminator=adam | dict(lr=1e-5, milestones=(30, 300, 500)),
    ),
    samples=5,
    adversarial_weight=10.0,
    calibration_weight=5.0,
    r1_weight=10.0,
    critic_steps=50,
    rest_steps=200,
    accuracy_cap=0.85,
    freeze_calnet=False,
  )
  c.data = dict(name='lidc_crops', size=128, batch=32, mirror=False, rot90=False)
  c.data.eval_size = 128  # as published: scores are of the central window
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 276_000, 100, 2_760, 1_380, 0
  # The authors chose by five fixed images: split='validation[10:15]'.
  c.evals = dict(val=dict(split='validation', samples=16, metrics=('ged16', 'hm_iou16')))
  c.best = 'val/ged16:min'
  metrics = ('ged16', 'ged50', 'ged100', 'hm_iou16', 'hm_iou50', 'hm_iou100', 'dice_max16', 'ece')
  c.report = dict(split='test', samples=100, metrics=metrics)
  publish(c, **PUBLISHED)
  if variant == 'calnet':
    c.published = {}
    c.method = dict(name='supervised', model=c.method.calnet, optim=c.method.optim.calnet)
  return c
