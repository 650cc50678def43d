"""RELIS' study: segmenters trained on Cityscapes, tested there, in bad weather (ACDC) and in India.

  car-jax prepare cityscapes --source DIR --scale 1 --splits reliability
  car-jax prepare acdc --source DIR --scale 1
  car-jax prepare idd --source DIR --scale 1 --unknown 8,16,17,23
  car-jax import mmseg FILE.pth --config configs/segformer_cityscapes.py:b0 \
    --out runs/segformer_b0
  car-jax eval --config configs/reliability_cityscapes.py --checkpoint runs/segformer_b0

Frankfurt is the test set, Munster and Lindau are for calibration, as published (arXiv 2303.11298).
There 20,000 random pixels of each image are scored; set sampled=20_000 for that.
"""

from ml_collections import ConfigDict

CONDITIONS = ('fog', 'night', 'rain', 'snow')


def get_config():
  c = ConfigDict()
  c.title = 'Trained on Cityscapes: fog, night, rain, snow and India'
  c.models = dict(segformer_b0='runs/segformer_b0')
  data = lambda name: dict(name=name, eval_batch=1)
  cityscapes = dict(data=data('cityscapes/scale1-splits_reliability'))
  acdc, idd = data('acdc/scale1'), data('idd/scale1-unknown_8+16+17+23')
  c.sets = {f'ACDC {k}': dict(data=acdc, split=f'{k}_test', condition=k) for k in CONDITIONS}
  c.sets['Cityscapes'] = cityscapes | dict(split='test', role='in-domain')
  c.sets['IDD'] = dict(data=idd, split='test', condition='India', absent=('terrain', 'train'))
  c.pools = {'ACDC': tuple(f'ACDC {k}' for k in CONDITIONS)}
  c.calibrate_on = cityscapes | dict(split='calibration')
  c.calibrators = dict(temperature='temperature', ece_grid='ece_grid', clusters8='clusters8')
  c.calibrators['selective'] = 'selective'
  return c
