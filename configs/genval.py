"""GenVal: do generated images tell how 42 segmenters fare on real shift (arXiv 2312.09231)?

  car-jax prepare cityscapes --source DIR --scale 1 --splits reliability
  car-jax prepare acdc --source DIR --scale 1
  car-jax prepare generated_scenes --source DIR
  car-jax import registry configs/genval.py --weights DIR
  car-jax eval --config configs/genval.py

Generated images are yours (`car-jax generate style`, see docs/generate.md) or the
released ones. The registry imports what it finds in the folder of weights to runs/genval/NAME, and
says what is missing; the study runs on what there is. `configs/genval.py:FOLDER` has the runs
elsewhere.
"""

from ml_collections import ConfigDict

from car_jax.configs import _studied


def get_config(runs='runs/genval'):
  c = ConfigDict()
  c.title = 'GenVal: generated shift against real shift, 42 segmenters of Cityscapes'
  c.models = _studied.models('G', _studied.folder(runs, 'runs/genval'))
  _studied.cityscapes(c)
  _studied.acdc(c)
  generated = dict(name='generated_scenes', eval_batch=1)
  for k in _studied.CONDITIONS:
    c.sets[f'generated {k}'] = dict(data=generated, split=k, condition=k)
  c.pools['generated'] = tuple(f'generated {k}' for k in _studied.CONDITIONS)
  both = dict(synthetic=('generated',), real=('ACDC',))
  c.correlations = {'weather': both | dict(measures=('miou', 'ece', 'auroc'))}
  return c
