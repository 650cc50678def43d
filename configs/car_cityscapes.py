"""CAR on Cityscapes with random class flips, the published setting (arXiv 2006.13144).

  car-jax prepare cityscapes --source FOLDER --black-box PREDICTIONS
  car-jax train --config configs/car_cityscapes.py --workdir runs/car_cityscapes

256x512 images, 128x128 crops; validated on the images of three training cities, reported on the
official validation split. One epoch is 168 steps; the authors trained for five days on one GPU.
The paper's scores on this data are not here: its table was not at hand.
"""

from car_jax.configs import car_lidc


def get_config():
  c = car_lidc.get_config()
  c.method.calnet = dict(name='toy_calnet', hidden=64)
  c.method.generator.latent = 32
  c.data = dict(name='cityscapes', size=128, batch=16, eval_batch=2, threads=8)
  c.data.class_flips = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'
  c.data.class_flip_black_box = True  # by rolls of its own, as published; False leaves it alone
  c.data.crop, c.data.scales = 'rescaled', (0.6, 0.7333333333333333, 0.8666666666666667, 1.0)
  c.steps, c.eval_every, c.save_every = 168_000, 1_680, 840
  spec = dict(samples=16, absent='skip', ignored='class')  # as published
  c.evals = dict(val=spec | dict(split='validation', metrics=('ged16', 'flip_error')))
  c.report = spec | dict(split='test')
  c.report.metrics = ('ged16', 'hm_iou16', 'flip_error', 'ece', 'miou')
  c.published = {}
  return c
