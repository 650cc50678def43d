"""The pickle of 128x128 LIDC crops that the Probabilistic U-Net ports share (the 'v1' split)."""

import pathlib
from typing import Any

import numpy as np

from car_jax.datasets import base
from car_jax.datasets.base import FileConfig as Config
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks
from car_jax.datasets.lidc_v1 import plain_pickle
from car_jax.errors import UserError, reading
from car_jax.files import is_leftover
from car_jax.importers import inert_arrays

READERS = 4
KEYS = ('image', 'masks', 'series_uid')
ENDINGS = ('.pickle', '.pkl')
WHAT = 'a pickle of LIDC crops'
MOST_SHARED = 8  # bytes of arrays for each of the file: a mask may be that of several readers


class Builder(base.Builder):
  """The crops of one dictionary, with the masks of four radiologists.

  Splits are by series, those of the seeds that MoSE (ICLR 2023) and others use. Images are stored
  with 8 bits.
  """

  ABOUT, HOMEPAGE = lidc_masks.ABOUT, lidc_masks.HOMEPAGE
  TRAINING = 'mose_lidc'
  FOR_ACCELERATOR = True
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    a pickle of one dictionary, such as data_lidc.pickle: name -> image (floats from 0 to 1), four
    masks, series_uid; as ports of the Probabilistic U-Net share it. Or name that file itself"""
  BUILDER_CONFIGS = [Config(description='128x128, as MoSE trains on')]

  def splits(self, source):
    self.path = source / self.builder_config.file
    self.entries = entries = read(self.path)
    for name, entry in entries.items():
      if missing := [k for k in KEYS if not isinstance(entry, dict) or k not in entry]:
        self.problems.add(f'{self.path}, {name!r}', f'has no {missing[0]!r}')
      elif not isinstance(name, str) or not isinstance(entry['series_uid'], str):
        self.problems.add(f'{self.path}, {name!r}', 'its name or its series_uid is no text')
    self.problems.stop_if_any(self.path)
    series = sorted({str(e['series_uid']) for e in entries.values()})
    splits = {split: {*uids} for split, uids in split_of(series).items()}
    if not all(splits.values()):
      raise UserError(f'{self.path} has {len(series)} series, which make no three splits')
    within = lambda uids: [name for name, e in entries.items() if e['series_uid'] in uids]
    return {split: within(uids) for split, uids in splits.items()}

  def example(self, name):
    entry, where = self.entries[name], f'{self.path}, {name!r}'
    image, masks = entry['image'], entry['masks']
    if wrong := fault(image, masks):
      self.problems.add(where, wrong)
      return
    uid, pixels = str(entry['series_uid']), np.round(image * 255).astype(np.uint8)
    yield f'{uid}/{name}', uid, pixels[..., None], np.uint8(np.stack(masks))


def fault(image: Any, masks: Any) -> str:
  """What is wrong with an entry's image [H, W] or its masks; empty for nothing."""
  if not isinstance(masks, list) or len(masks) != READERS:
    count = f'{len(masks)} masks' if isinstance(masks, list) else 'no list of masks'
    return f'{count}; expected {READERS}'
  if any(not isinstance(x, np.ndarray) or x.dtype.kind not in 'biuf' for x in (image, *masks)):
    return 'its image or a mask is no array of numbers'
  if image.ndim != 2 or any(m.shape != image.shape for m in masks):
    return f'image {image.shape}, masks {[m.shape for m in masks]}'
  if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
    return f'image from {image.min()} to {image.max()}; expected 0 to 1'
  odd = sorted({float(v) for m in masks for v in np.unique(m)} - {0.0, 1.0})
  return f'value {odd[0]:g} in a mask; expected 0 and 1' if odd else ''


def split_of(uids: list[str]) -> dict[str, list[str]]:
  """Sorted series -> splits of 64, 16 and 20 %: twice a fifth of a permutation of seed 0.

  Equal to scikit-learn's train_test_split(test_size=0.2, random_state=0), applied to its own rest.
  """

  def rest_and_fifth(names):
    order = np.random.RandomState(0).permutation(len(names))
    k = -(-len(names) // 5)
    return [names[i] for i in order[k:]], [names[i] for i in order[:k]]

  rest, test = rest_and_fifth(uids)
  train, validation = rest_and_fifth(rest)
  return {'train': train, 'validation': validation, 'test': test}


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The dictionary of a pickle, which is held in memory whole. Raises UserError."""
  if path.is_dir():
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and not is_leftover(p))
    if len(paths) != 1:
      raise UserError(f'{path} holds {len(paths)} pickles; name the file with --source')
    path = paths[0]
  content = plain_pickle.read(path, WHAT)
  if not isinstance(content, dict) or not content or not all(type(k) is str for k in content):
    raise UserError(f'{path} is no {WHAT[2:]}: it holds no dictionary of them by name')
  size, total = path.stat().st_size, 0
  for entry in content.values():
    with reading(path, WHAT):
      for key, value in entry.items() if isinstance(entry, dict) else ():
        entry[key] = plain(value)
    total += sum(x.nbytes for x in arrays(entry))
  if total > MOST_SHARED * size:
    raise UserError(f'{path} is no {WHAT[2:]}: its entries share their arrays')
  return content


def plain(value: Any) -> Any:
  """An array, or a list of readers' arrays, in place of what was read of them."""
  if isinstance(value, inert_arrays.Array):
    value = value.values
    return [*value] if value.ndim == 3 else value  # masks in one array
  if isinstance(value, list | tuple) and len(value) == READERS:
    return [v.values if isinstance(v, inert_arrays.Array) else v for v in value]
  return value


def arrays(entry: Any) -> list[np.ndarray]:
  """The image and the masks of an entry, as far as they are arrays."""
  if not isinstance(entry, dict):
    return []
  masks = entry.get('masks')
  values = [entry.get('image'), *(masks if isinstance(masks, list) else [])]
  return [x for x in values if isinstance(x, np.ndarray)]
