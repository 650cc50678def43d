"""MoSE on Cityscapes with random class flips, as released (Gao et al., ICLR 2023).

  car-jax prepare cityscapes --source FOLDER --black-box PREDICTIONS
  car-jax train --config configs/mose_cityscapes.py --workdir runs/mose_cityscapes

256x512 images, 32 label modes with their exact weights, 35 experts, a black-box prediction as
fourth input channel. Without --black-box set --config.method.black_box=. What is published is of
the released weights, with 16 samples.
"""

from ml_collections import ConfigDict

from car_jax.configs._published import publish
from car_jax.configs.mose_lidc import ECE, released

TEN = 'IoU of the ten classes that flip, absent ones left out, 32 label maps by their weights'
TOP = 'MoSE’s own: of the likeliest class in 10 bins, over all pixels; printed there in per cent'


def get_config():
  c = ConfigDict()
  c.method = dict(
    name='mose',
    model=dict(name='mose', widths=(32, 64, 128, 192, 192, 192, 192), latent=5, experts=35),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    samples=(1, 2),
    sample_patience=30,
    cost='cross_entropy',
    coupling='greedy',
    gate_weight=1.0,
    row_limits=(1 / 32, 1.0),
    row_patience=30,
    groupings=(1.0, 0.95, 0.925, 0.9),
    group_patience=30,
    rate_patience=10,
    schedule_metric='epoch',
    channels=3,
    pixel_mean=(0.28689554, 0.32513303, 0.28389177),
    pixel_std=(0.18696375, 0.19017339, 0.18720214),
    black_box='number',
  )
  c.data = dict(name='cityscapes', size=128, batch=12, eval_batch=2, threads=8)
  c.data.class_flips = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'
  c.data.class_flip_black_box = False
  c.data.crop, c.data.scales = 'resized', (0.6, 0.73, 0.86, 0.99)
  c.data.mirror, c.data.eval_size = True, 0
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 225_000, 100, 2_250, 450, 0
  spec = dict(samples=16, absent='skip')
  c.evals = dict(val=spec | dict(split='validation', metrics=('ged16', 'flip_error')))
  c.best = 'val/ged16:min'
  c.report = spec | dict(split='test', samples=35, chunk=35)
  c.report.metrics = ('ged16', 'hm_iou16', ECE, 'flip_error', 'ece', 'miou')
  publish(c, **released(0.178, 0.641, 0.0326, TEN, TOP))
  return c
