"""MoSE on LIDC as released (Gao et al., ICLR 2023): the 'v1' split, four readers, 128x128.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/mose_lidc.py --workdir runs/mose_lidc

Published: GED16 0.218 +- 0.003, matched IoU 0.624 +- 0.004 (as quoted by CCDM, ICCV 2023). 200
epochs of about 600 steps. The ECE is the published form. The first validation is after one epoch,
not before training.
"""

from ml_collections import ConfigDict


def get_config():
  c = ConfigDict()
  c.method = dict(
    name='mose',
    model=dict(name='mose', widths=(32, 64, 128, 192, 192, 192, 192), latent=1, experts=4),
    optim=dict(lr=1e-3, weight_decay=1e-5),
    samples=(4,),
    cost='iou',
    gate_weight=1.0,
    row_limits=(0.5, 1.0),
    row_patience=10,
    rate_patience=10,
    schedule_metric='epoch',
    one_annotation=False,
  )
  c.data = dict(name='lidc_v1', size=128, batch=16, mirror=True)
  c.data.mirror_rows, c.data.rotate = True, 10.0
  c.data.eval_size = 128  # as published, whatever the size of the crops
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = 120_000, 100, 600, 600, 0
  c.evals = dict(val=dict(split='validation', samples=16, metrics=('ged16', 'hm_iou16')))
  c.best = 'val/ged16:min'
  metrics = ('ged16', 'ged50', 'ged100', 'hm_iou16', 'hm_iou50', 'hm_iou100', 'dice_max16')
  c.report = dict(split='test', samples=100, metrics=(*metrics, 'ece[listed,bins=10]'))
  return c
