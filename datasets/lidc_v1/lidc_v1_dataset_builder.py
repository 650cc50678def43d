"""The pickle of 128x128 LIDC crops that the Probabilistic U-Net ports share (the 'v1' split)."""

import functools
import pathlib
import pickle
from typing import Any

import numpy as np

from car_jax.errors import UserError
from datasets import common
from datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks

READERS = 4
KEYS = ('image', 'masks', 'series_uid')


class Builder(common.Builder):
  """One dictionary: name -> image (floats from 0 to 1), four masks, series_uid.

  Splits are by series, those of the seeds that MoSE (ICLR 2023) and others use. Images are stored
  with 8 bits.
  """

  CONFIG = 'mose_lidc'
  SOURCE = 'the pickle, or the folder that it lies in'

  def contents(self, options, problems):
    entries = read(options.source)
    path = options.source
    for name, entry in entries.items():
      if missing := [k for k in KEYS if not isinstance(entry, dict) or k not in entry]:
        problems.add(f'{path}, {name!r}', f'has no {missing[0]!r}')
    problems.stop_if_any(path)
    splits = {}
    for split, uids in split_of(sorted({str(e['series_uid']) for e in entries.values()})).items():
      chosen = set(uids)
      names = [name for name, e in entries.items() if str(e['series_uid']) in chosen]
      splits[split] = len(names), functools.partial(_examples, path, entries, names, problems)
    return lidc_masks.contents(splits)


def _examples(path: pathlib.Path, entries: dict, names: list, problems: common.Problems):
  for name in names:
    entry, where = entries[name], f'{path}, {name!r}'
    image, masks = np.asarray(entry['image']), [np.asarray(m) for m in entry['masks']]
    if len(masks) != READERS:
      problems.add(where, f'{len(masks)} masks; expected {READERS}')
    elif image.ndim != 2 or any(m.shape != image.shape for m in masks):
      problems.add(where, f'image {image.shape}, masks {[m.shape for m in masks]}')
    elif not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
      problems.add(where, f'image from {image.min()} to {image.max()}; expected 0 to 1')
    elif odd := sorted({float(v) for m in masks for v in np.unique(m)} - {0.0, 1.0}):
      problems.add(where, f'value {odd[0]:g} in a mask; expected 0 and 1')
    else:
      uid = str(entry['series_uid'])
      pixels = np.uint8(np.round(image * 255))[..., None]
      yield f'{uid}/{name}', uid, pixels, np.uint8(np.stack(masks))


def split_of(uids: list[str]) -> dict[str, list[str]]:
  """Sorted series -> splits of 64, 16 and 20 %: twice a fifth of a permutation of seed 0.

  Equal to scikit-learn's train_test_split(test_size=0.2, random_state=0), applied to its own rest.
  """

  def parted(names):
    order = np.random.RandomState(0).permutation(len(names))
    k = -(-len(names) // 5)
    return [names[i] for i in order[k:]], [names[i] for i in order[:k]]

  rest, test = parted(uids)
  train, validation = parted(rest)
  return {'train': train, 'validation': validation, 'test': test}


class _Arrays(pickle.Unpickler):
  """Admits what rebuilds numpy arrays, and so cannot be made to run a file's code."""

  def find_class(self, module: str, name: str) -> Any:
    home = module.replace('numpy._core', 'numpy.core')
    if (home, name) in (('numpy', 'ndarray'), ('numpy', 'dtype')):
      return getattr(np, name)
    if home == 'numpy.core.multiarray' and name in ('_reconstruct', 'scalar'):
      return getattr(np._core.multiarray, name)
    if (home, name) == ('numpy.core.numeric', '_frombuffer'):
      return np._core.numeric._frombuffer
    if (module, name) == ('_codecs', 'encode'):
      return lambda text, _: text.encode('latin1')
    raise pickle.UnpicklingError(f'it asks for {module}.{name}')


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The dictionary of a pickle, which is held in memory whole. Raises UserError."""
  if path.is_dir():
    found = sorted(path.glob('*.pickle')) + sorted(path.glob('*.pkl'))
    if len(found) != 1:
      raise UserError(f'{path} holds {len(found)} pickles; name the file with --source')
    path = found[0]
  try:
    with path.open('rb') as file:
      content = _Arrays(file, encoding='latin1').load()
  except Exception as e:  # a damaged pickle raises nearly anything
    reason = str(e).partition('\n')[0] or type(e).__name__
    raise UserError(f'{path} is no pickle of LIDC crops, or damaged ({reason})') from None
  if not isinstance(content, dict) or not content:
    raise UserError(f'{path} is no pickle of LIDC crops: it holds no dictionary of them')
  return content
