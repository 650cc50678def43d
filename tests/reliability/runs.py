"""Small prepared scenes, trained runs and a study over them, made once for the tests beside."""

import pathlib

from ml_collections import ConfigDict

import train
from datasets import prepare

def scenes(folder: pathlib.Path, **changes) -> str:
  """Prepares 32 x 64 scenes, 4 to test on -> the data set's name."""
  defaults = prepare.DATASETS['street_scenes'][1]
  values = defaults | dict(height=32, count=16, unknown=1.0, part='test') | changes
  prepare.prepare('street_scenes', None, folder, values, False)
  return f'street_scenes/{prepare.variant(values, defaults)}'


def trained(workdir: pathlib.Path, variant: str, data: pathlib.Path, name: str) -> pathlib.Path:
  """A run of two steps on whole scenes."""
  changes = dict(name=name, data_dir=data, size=32, crop='random', batch=4, eval_batch=2)
  changes |= dict(rot90=False)
  config = workdir.with_suffix('.py')
  config.write_text(
    'from configs import smoke\n\ndef get_config():\n'
    f'  c = smoke.get_config({variant!r})\n'
    f'  c.data = {({k: str(v) if k == "data_dir" else v for k, v in changes.items()} | dict(eval_size=0))!r}\n'
    '  c.steps, c.eval_every, c.save_every, c.evals, c.best = 2, 0, 2, {}, ""\n'
    '  return c\n'
  )
  assert train.main(['--config', str(config), '--workdir', str(workdir)]) == 0
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
  c.resamples, c.worst = 20, 2
  for k, v in changes.items():
    c[k] = v
  return c

