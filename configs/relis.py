"""RELIS: 27 segmenters of Cityscapes there, in bad weather (ACDC) and in India (arXiv 2303.11298).

  car-jax prepare cityscapes --source DIR --scale 1 --splits reliability
  car-jax prepare acdc --source DIR --scale 1
  car-jax prepare idd --source DIR --scale 1 --unknown 8,16,17,23
  car-jax import registry configs/relis.py --weights DIR
  car-jax eval --config configs/relis.py

The registry imports what it finds in the folder of weights to runs/relis/NAME, and says what is
missing; the study runs on what there is. `configs/relis.py:FOLDER` has the runs elsewhere.
Frankfurt is the test set, Munster and Lindau are for calibration, and 20,000 random pixels of each
image are scored, as published.
"""

from ml_collections import ConfigDict

from car_jax.configs import _studied


def get_config(runs='runs/relis'):
  c = ConfigDict()
  c.title = 'RELIS: 27 segmenters of Cityscapes under shift'
  c.models = _studied.models('R', _studied.folder(runs, 'runs/relis'))
  _studied.cityscapes(c)
  _studied.acdc(c)
  idd = dict(name='idd/scale1-unknown_8+16+17+23', eval_batch=1)
  c.sets['IDD'] = dict(data=idd, split='test', condition='India', absent=('terrain', 'train'))
  c.calibrators['selective'] = 'selective'
  c.sampled = 20_000
  return c
