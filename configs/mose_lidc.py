"""MoSE on LIDC as released (Gao et al., ICLR 2023): the 'v1' split, four readers, 128x128.

  car-jax prepare lidc_v1 --source data_lidc.pickle
  car-jax train --config configs/mose_lidc.py --workdir runs/mose_lidc

PUBLISHED has what is published: of trainings, and of the weights that were released. 200 epochs of
about 600 steps. The ECE is the published form. The first validation is after one epoch, not before
training. All of it, beside the published scores: car-jax reproduce lidc-mose --source FILE
"""

from ml_collections import ConfigDict

from car_jax.configs._published import CCDM, FOUR_READERS, paper, publish, weights

V1 = dict(source=f'MoSE, {CCDM}: LIDC, split v1', convention=FOUR_READERS)
RELEASE = 'README of the code released with Gao et al., ICLR 2023'
ECE = 'ece[listed,bins=10]'
ECE_FORM = 'MoSE’s own: foreground probability in 10 bins, all pixels; printed there in per cent'
PUBLISHED = dict(
  ged16=paper('ged16', 0.218, 0.003, **V1),
  ged50=paper('ged50', 0.195, 0.002, **V1),
  ged100=paper('ged100', 0.189, 0.002, **V1),
  hm_iou16=paper('hm_iou16', 0.624, 0.004, **V1),
)


def released(ged16, hm_iou16, ece, convention=FOUR_READERS, ece_form=ECE_FORM):
  """Scores of weights with 16 samples."""
  of = dict(source=RELEASE, convention=convention)
  return dict(
    weights_ged16=weights('ged16', ged16, **of),
    weights_hm_iou16=weights('hm_iou16', hm_iou16, **of),
    weights_ece=weights(ECE, ece, RELEASE, 5e-4, ece_form),
  )


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
  c.report = dict(split='test', samples=100, metrics=(*metrics, ECE))
  publish(c, **PUBLISHED, **released(0.213, 0.622, 0.00045))
  return c
