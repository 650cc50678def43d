"""CAR on drawn street scenes with random class flips, 64x128: about 40 minutes on two CPU cores.

  car-jax prepare street_scenes --height 64
  car-jax train --config configs/car_street_scenes.py --workdir runs/car_street_scenes

The right answer is known: each of five classes has a twin whose probability is in
data.class_flips, and a black-box prediction tells where the classes are (arXiv 2006.13144, section
5.3).
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  adam = dict(b1=0.5, b2=0.99, weight_decay=5e-4, milestones=(16,), factor=0.2)
  c.method = dict(
    name='car',
    calnet=dict(name='toy_calnet', hidden=24, dropout=0.05),
    generator=dict(name='unet_generator', hidden=16, latent=8),
    discriminator=dict(name='pixel_discriminator', hidden=12),
    optim=dict(
      calnet=adam | dict(lr=2e-3),
      generator=adam | dict(lr=3e-3, weight_decay=0.0),
      discriminator=adam | dict(lr=2e-4),
    ),
    samples=8,
    adversarial_weight=1.0,
    calibration_weight=5.0,
    critic_steps=1,
    rest_steps=1,
  )
  c.data = dict(name='street_scenes/height64', size=64, batch=6, eval_batch=4)
  c.data.class_flips = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'
  c.data.crop, c.data.mirror, c.data.eval_size = 'random', True, 0
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 3_000, 50, 250, 250, 0
  spec = dict(samples=16, absent='skip')
  c.evals = dict(val=spec | dict(split='validation[:32]', metrics=('ged16', 'flip_error')))
  c.best = 'val/ged16:min'
  c.report = spec | dict(split='test', metrics=('ged16', 'hm_iou16', 'flip_error', 'ece', 'miou'))
  return c
