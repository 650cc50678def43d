"""Imports the published weights of a study's models that lie in a folder."""

import fnmatch
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import files as inputs
from car_jax import progress
from car_jax import registry as parts
from car_jax.errors import UserError
from car_jax.importers import comparison
from car_jax.importers.segmenters import FRAME
from car_jax.nn.composed import Composition
from car_jax.published import scores
from car_jax.reliability import study_options

Importing = Callable[[Mapping[str, Any], pathlib.Path, pathlib.Path], None]
CONFIG = 'config.json'
ROUNDING = 0.0051  # of the millions of parameters in a table
# What a run's config says of how a net is tested, beside the net itself.
TESTED: tuple[str, ...] = ('method.model.mean', 'method.model.std', 'method.crop', 'method.stride')
TESTED += tuple(f'data.{key}' for key in FRAME)


def matched(models: Mapping[str, Any], files: list[pathlib.Path]) -> dict[str, pathlib.Path]:
  """Model -> the file of its weights, of those that have one: the surest name counts.

  Raises UserError where a name fits several files.
  """
  file_of = {}
  for name, model in models.items():
    for pattern in (model.get('published') or {}).get('files') or ():
      fits = [f for f in files if fnmatch.fnmatchcase(f.name, pattern)]
      if len(fits) > 1:
        names = ', '.join(str(f) for f in fits[:4])
        raise UserError(f'{name}: several files are called {pattern}: {names}\n  keep one of them')
      if fits:
        file_of[name] = fits[0]
        break
  return file_of


def run(study: str, weights: str, importing: Importing) -> list[str]:
  """Imports what is there and not imported yet -> lines about all models. Raises UserError.

  importing(published, file, out) makes a run of a file; published: what the study says of it.
  """
  folder = pathlib.Path(weights)
  if not folder.is_dir():
    raise UserError(f'--weights {weights} is no folder\n  give the one that the files lie in')
  models = study_options.load(study).to_dict()['models']
  named = {k: m for k, m in models.items() if (m.get('published') or {}).get('files')}
  if not named:
    raise UserError(f'{study} names no files of weights\n  a study that does: configs/relis.py')
  files = sorted(p for p in folder.rglob('*') if p.is_file() and not p.name.startswith('.'))
  file_of = matched(named, files)
  lines, done = [], progress.line(len(file_of), title='imported')
  for name, file in file_of.items():
    out, published = pathlib.Path(models[name]['path']), named[name]['published']
    if not (out / CONFIG).exists():
      importing(published, file, out)
    lines += [f'{name}: {out}{_about(published)}', *_remarks(out, published)]
    done(1)
  missing = {k: m['published']['files'][0] for k, m in named.items() if k not in file_of}
  if missing:
    lines += [f'not in {folder}:', *(f'  {name}: {file}' for name, file in missing.items())]
  if left := [str(f.relative_to(folder)) for f in files if f not in file_of.values()]:
    shown = ', '.join(left[:20]) + (f' and {len(left) - 20} more' if left[20:] else '')
    lines.append(f'of no model of the study: {shown}')
  if not file_of:
    raise UserError(f'{folder} holds no file of a model of {study}\n  ' + '\n  '.join(lines))
  return [
    *lines,
    f'{len(file_of)} of {len(named)} models; study them: car-jax eval --config {study}',
  ]


def complete(study: str, weights: str) -> bool:
  """Whether what a folder holds of a study's models is imported already."""
  folder = pathlib.Path(weights)
  models = study_options.load(study).to_dict()['models']
  file_of = matched(models, [p for p in folder.rglob('*') if p.is_file()])
  there = {name for name, m in models.items() if (pathlib.Path(m['path']) / CONFIG).exists()}
  return bool(there) and there >= {*file_of}


def check_size(
  path: Any, config: ConfigDict, num_classes: int, published: Mapping[str, Any]
) -> None:
  """Raises UserError where a file's net has another number of parameters than the study says."""
  net = parts.net(config.method.model.to_dict(), num_classes=num_classes)
  size, known = comparison.millions(net), published['parameters']
  if known and abs(size - known) > ROUNDING:
    raise UserError(
      f"{path}: the file's net has {size:.2f} M parameters for {num_classes} classes, the study's "
      f'{known:g} M: it is another model\n'
      '  rename the file or move it away; for a run of its own: car-jax import '
      f'{published["importer"]} {path} --out FOLDER'
    )


def _remarks(run: pathlib.Path, published: Mapping[str, Any]) -> list[str]:
  """In what a run is not as the study's config of its model; it is as its file says."""
  if not published['config']:
    return []
  configs_of = configs.load(published['config']), configs.saved(inputs.read_json(run / CONFIG))
  ours, theirs = (parts.net(c.method.model.to_dict(), num_classes=1) for c in configs_of)
  if not (isinstance(ours, Composition) and isinstance(theirs, Composition)):
    return []
  wrong = comparison.differences(ours, theirs)
  a, b = map(configs.flatten, configs_of)
  for key in TESTED:
    if np.shape(a[key]) != np.shape(b[key]) or not np.allclose(a[key], b[key]):
      wrong.append(f'{key} is {a[key]!r}, in the file {b[key]!r}')
  where = f'  as its file says, and not as {published["config"]}:'
  return [where, *(f'    {line}' for line in wrong)] if wrong else []


def _about(published: Mapping[str, Any]) -> str:
  size, given = published['parameters'], scores(published['scores'])
  sized = f', {size:g} M parameters' if size else ''
  return sized + ''.join(f', published {s.score} {s.text}' for s in given)
