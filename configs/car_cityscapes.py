"""CAR on Cityscapes with random class flips, the published setting (arXiv 2006.13144).

  python -m datasets.prepare cityscapes --source FOLDER --black-box PREDICTIONS
  python train.py --config configs/car_cityscapes.py --workdir runs/car_cityscapes

256x512 images, 128x128 crops; validated on the images of three training cities, reported on the
official validation split. One epoch is 168 steps; the authors trained for five days on one GPU.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  adam = dict(b1=0.5, b2=0.99, weight_decay=5e-4)
  c.method = dict(
    name='car',
    calnet=dict(name='toy_calnet', hidden=64),
    generator=dict(name='unet_generator', hidden=32, latent=32),
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
  )
  c.data = dict(name='cityscapes', data_dir='', size=128, batch=16, eval_batch=2, threads=8)
  c.data.flips = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'
  c.data.flip_black_box = True  # by rolls of its own, as published; False leaves it alone
  c.data.crop, c.data.scales = 'rescaled', (0.6, 0.7333333333333333, 0.8666666666666667, 1.0)
  c.data.eval_size = 0  # whole images
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 168_000, 100, 1_680, 840, 0
  spec = dict(samples=16, absent='skip')
  c.evals = dict(val=spec | dict(split='validation', metrics=('ged16', 'flip_error')))
  c.best = 'val/ged16:min'
  c.report = spec | dict(split='test')
  c.report.metrics = ('ged16', 'hm_iou16', 'flip_error', 'ece', 'miou')
  return c
