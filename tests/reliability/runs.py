"""Small prepared scenes, trained runs and a study over them, made once for the tests beside."""

import pathlib

import cv2
import numpy as np
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import loop
from car_jax.datasets import prepare
from car_jax.metrics.base import Outputs
from car_jax.reliability import study_options


def scenes(folder: pathlib.Path, **changes) -> str:
  """Prepares 32 x 64 scenes, 4 to test on -> the data set's name."""
  builder = prepare.builder('street_scenes')
  options = dict(height=32, count=16, unknown=1.0, part='test') | changes
  config = builder.builder_config_cls(**options)
  prepare.prepare('street_scenes', None, folder, config, False)
  return f'street_scenes/{config.name}'


def trained(workdir: pathlib.Path, variant: str, data: pathlib.Path, name: str) -> pathlib.Path:
  """Two steps of a small net on crops of prepared scenes; whole scenes in evaluation."""
  c = configs.load(f'tests/small.py:{variant}')
  c.unlock()
  c.data = dict(name=name, data_dir=str(data), size=32, crop='random', batch=4, eval_size=0)
  if variant == 'car':
    c.method = c.method.to_dict() | dict(discriminator=None, adversarial_weight=0.0)
  c.steps, c.eval_every, c.save_every, c.evals, c.best = 2, 0, 2, {}, ''
  loop.train(c, workdir)
  return workdir


def study(models: dict, data: pathlib.Path, names: dict, **changes) -> ConfigDict:
  """A study of `models` on the sets `names` (set -> prepared name); the first is in-domain."""
  c = ConfigDict(allow_dotted_keys=True)
  entry = lambda name: dict(data=dict(name=name, data_dir=str(data), eval_batch=2), split='test')
  c.models = {k: str(v) for k, v in models.items()}
  c.sets = {
    k: entry(name) | dict(role='shifted' if i else 'in-domain', shift=float(i > 0))
    for i, (k, name) in enumerate(names.items())
  }
  c.calibrate_on = entry(next(iter(names.values())))
  c.calibrators = dict(temperature='temperature', clusters='clusters2')
  c.measures = ('miou', 'ece', 'adaptive_ece', 'auroc', 'unknown_auroc', 'unknown_auroc[max_logit]')
  c.measures += ('image_aurc', 'image_aurc[soft_dice]', 'image_augrc[patch10]')
  c.resamples, c.worst = 20, 2
  for k, v in changes.items():
    c[k] = v
  return c


def arrays(predicted):
  """What a batch of one subject holds: logits, labels [B, H, W], and what else there is."""
  (row,) = predicted.rows.values()
  batch = {k: v for k, v in predicted.batch.items() if k not in ('label_weight', 'valid')}
  batch |= {'logits': Outputs(row.prediction).logits, 'labels': batch['labels'][:, 0]}
  if row.prediction.disagreement is not None:
    batch['disagreement'] = row.prediction.disagreement
  return batch


def traits(predicted):
  (row,) = predicted.rows.values()
  return row.traits


def foreign(
  where: pathlib.Path, sets: tuple[str, ...] = ('clear', 'fog'), *, fresh: bool = True
) -> ConfigDict:
  """A study of predictions of two images of each set and of calibrate_on; fresh: makes them."""
  rng = np.random.default_rng(0)
  for name in (*sets, 'calibrate_on') if fresh else ():
    for part in ('predictions', 'labels'):
      (where / part / name).mkdir(parents=True)
    for k in range(2):
      logits = rng.normal(size=(6, 8, 4)).astype(np.float32)
      np.save(where / 'predictions' / name / f'{k}.npy', logits)
      cv2.imwrite(str(where / 'labels' / name / f'{k}.png'), np.uint8(logits.argmax(-1)))
  c = study_options.defaults()
  c.models = {'mine': str(where / 'predictions' / '{set}')}
  c.sets = {name: dict(labels=str(where / 'labels' / name)) for name in sets}
  c.calibrate_on = dict(labels=str(where / 'labels' / 'calibrate_on'))
  c.calibrators = dict(temperature='temperature', clusters='clusters2')
  c.classes, c.palette, c.measures = tuple('abcd'), ((0, 0, 0),) * 4, ('miou', 'ece')
  c.resamples, c.worst = 5, 1
  return c
