"""Imported segmenters on all 500 validation images of Cityscapes, beside their published mIoU.

  car-jax prepare cityscapes --source DIR --scale 1 --splits reliability
  car-jax import registry configs/relis.py --weights DIR
  car-jax eval --config configs/reliability_validation.py

Accuracy is published of all 500; RELIS and GenVal test on those of Frankfurt. The models are those
of both studies that are there; `configs/reliability_validation.py:FOLDER` has the runs elsewhere.
"""

from ml_collections import ConfigDict

from car_jax.configs import _studied


def get_config(runs='runs/relis'):
  c = ConfigDict()
  c.title = 'Segmenters of Cityscapes: all validation images'
  runs = _studied.folder(runs, 'runs/relis')
  c.models = _studied.models('G', runs) | _studied.models('R', runs)
  c.missing = 'skip'
  data = dict(name='cityscapes/scale1-splits_reliability', eval_batch=1)
  c.sets = ConfigDict()
  for split in ('test', 'calibration'):
    c.sets[f'validation, {split}'] = dict(data=data, split=split, role='in-domain')
  c.pools = {'validation': tuple(c.sets)}
  c.measures, c.guarantees = ('miou', 'ece'), {}
  return c
