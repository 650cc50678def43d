"""CAR on LIDC, the published setting (arXiv 2006.13144): 180x180 crops, four readers, 128x128.

  python -m datasets.prepare lidc_crops --source FOLDER
  python train.py --config configs/car_lidc.py --workdir runs/car_lidc

Published on this split: GED16 0.264 +- 0.002, HM-IoU16 0.592 +- 0.005 (table of CCDM, ICCV 2023).
One epoch is 276 steps; the authors trained for five days on one 16 GB GPU. There the encoder starts
from ImageNet weights; here from VGG's random initialisation.
"""

from ml_collections import ConfigDict


def get_config():
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
  c.data = dict(name='lidc_crops', data_dir='', size=128, batch=32, flip=False, rot90=False)
  c.data.eval_size = 128  # as published: scores are of the central window
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 276_000, 100, 2_760, 1_380, 0
  # The authors chose by five fixed images: split='validation[10:15]'.
  c.evals = dict(val=dict(split='validation', samples=16, metrics=('ged16', 'hm_iou16')))
  c.best = 'val/ged16:min'
  c.report = dict(split='test', samples=16, metrics=('ged16', 'hm_iou16', 'dice_max16', 'ece'))
  return c
