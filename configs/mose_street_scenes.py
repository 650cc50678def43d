"""MoSE on drawn street scenes with random class flips, 64x128: 20 minutes on two CPU cores.

  car-jax prepare street_scenes --height 64
  car-jax train --config configs/mose_street_scenes.py --workdir runs/mose_street_scenes

As configs/car_street_scenes.py; 32 modes, so 35 experts, whose probabilities the gate must find.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.method = dict(
    name='mose',
    model=dict(name='mose', widths=(16, 24, 32, 48), latent=5, experts=35),
    optim=dict(lr=2e-3, weight_decay=1e-5),
    samples=(1,),
    cost='balanced_cross_entropy',
    gate_weight=1.0,
    row_limits=(1 / 32, 1.0),
    row_patience=30,
    groupings=(1.0,),
    rate_patience=10,
    channels=3,
    pixel_mean=(0.4, 0.4, 0.4),
    pixel_std=(0.2, 0.2, 0.2),
    black_box='one_hot',
  )
  c.data = dict(name='street_scenes/height64', size=64, batch=4, eval_batch=4)
  c.data.class_flips = 'sidewalk:8/17,person:7/17,car:6/17,vegetation:5/17,road:4/17'
  c.data.class_flip_black_box = False
  c.data.crop, c.data.mirror, c.data.eval_size = 'random', True, 0
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 2_000, 50, 500, 250, 0
  spec = dict(samples=16, absent='skip')
  c.evals = dict(val=spec | dict(split='validation[:32]', metrics=('ged16', 'flip_error')))
  c.best = 'val/ged16:min'
  c.report = spec | dict(samples=35, chunk=35, split='test')
  c.report.metrics = ('ged16', 'hm_iou16', 'flip_error', 'ece', 'miou')
  return c
