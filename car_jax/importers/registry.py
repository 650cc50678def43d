"""Imports the published weights of a study's models that lie in a folder."""

import fnmatch
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from car_jax import progress
from car_jax.errors import UserError
from car_jax.reliability import plan

Importing = Callable[[str, pathlib.Path, str, pathlib.Path], None]


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

  importing(importer, file, config, out) makes a run of a file.
  """
  folder = pathlib.Path(weights)
  if not folder.is_dir():
    raise UserError(f'--weights {weights} is no folder\n  give the one that the files lie in')
  models = plan.load(study).to_dict()['models']
  named = {k: m for k, m in models.items() if (m.get('published') or {}).get('files')}
  if not named:
    raise UserError(f'{study} names no files of weights\n  a study that does: configs/relis.py')
  files = sorted(p for p in folder.rglob('*') if p.is_file() and not p.name.startswith('.'))
  file_of = matched(named, files)
  lines, done = [], progress.line(len(file_of), title='imported')
  for name, file in file_of.items():
    out, published = pathlib.Path(models[name]['path']), named[name]['published']
    if not (out / 'config.json').exists():
      importing(published['importer'], file, published['config'], out)
    lines.append(f'{name}: {out}{_about(published)}')
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
    f'{len(file_of)} of {len(named)} models; study them: python eval.py --config {study}',
  ]


def _about(published: Mapping[str, Any]) -> str:
  size, miou = published['parameters'], published['miou']
  sized = f', {size:g} M parameters' if size else ''
  return sized + (f', published mIoU {miou:g} %' if miou else '')
