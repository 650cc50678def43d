"""One image's files -> its samples or its readers, checked.

Letters: N samples, M readers, H x W pixels of the label, C classes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax.data import labels as cityscapes
from car_jax.errors import UserError, nearest
from car_jax.evaluate.predict import label_type
from car_jax.reliability import foreign
from car_jax.reliability.interpret import KINDS, Reading, Values, understood

IGNORED, UNKNOWN = cityscapes.IGNORED_TRAIN_ID, cityscapes.UNKNOWN_LABEL
MOST_CLASSES = UNKNOWN  # their ids are below the labels of what is no class
READERS = ('readers', 'labels')  # names of arrays of labels
WEIGHTS = ('weights', 'weight')
BESIDE = (*WEIGHTS, 'features')  # no predictions themselves
Arrays = Mapping[str, np.ndarray]  # a file's arrays by name


@dataclasses.dataclass(frozen=True)
class Stored:
  """What is said of an image: label maps [N, H, W] and their weights [N], which sum to one.

  mean [H, W, C]: class probabilities; None: those that follow from the maps. own: as in
  predict.Prediction. kind: what was read, in words. equal: no sample weighs more than another.
  """

  labels: np.ndarray
  weight: np.ndarray
  kind: str
  equal: bool = True
  mean: np.ndarray | None = None
  own: np.ndarray | None = None


def read(files: Sequence[tuple[Any, Arrays]], how: Reading, counted: np.ndarray) -> Stored:
  """The samples of an image from one file, or from one file each: their paths and arrays.

  how: interpret.Reading. counted: bool [H, W], pixels that some reader knows. Raises UserError.
  """
  parts = [of_arrays(arrays, how, counted, path) for path, arrays in files]
  first = parts[0]
  if len(parts) == 1:
    return first
  for (path, _), part in zip(files, parts, strict=True):
    if len(part.labels) > 1:
      raise UserError(
        f'{path} holds {len(part.labels)} samples, one of {len(files)} files of its image\n'
        '  put them all into one file, or one into each'
      )
    if part.kind != first.kind:
      raise UserError(f'{path} holds {part.kind}, {files[0][0]} {first.kind}')
  means = [part.mean for part in parts if part.mean is not None]
  return Stored(
    np.concatenate([part.labels for part in parts]),
    _equal(len(parts)),
    first.kind,
    mean=np.mean(means, 0) if means else None,
  )


def of_arrays(arrays: Arrays, how: Reading, counted: np.ndarray, path: Any) -> Stored:
  """A file's arrays by name: samples, probabilities, logits, weights, or a single one of any name.

  Samples are label maps [N, H, W], or probabilities or logits with N in front; without N there is
  one. Probabilities or logits beside label maps are what the scores of calibration are of.
  """
  known = [name for name in KINDS if name in arrays]
  rest = [name for name in arrays if name not in (*KINDS, *BESIDE)]
  if bool(known) == bool(rest) or len(rest) > 1:
    near = nearest(rest[0], (*KINDS, *WEIGHTS)) if rest else f'  name it {" or ".join(KINDS)}'
    raise UserError(f'{path} holds {sorted(arrays)}: which one is scored?\n{near}')
  values = {
    name: _understood(name if name in KINDS else '', arrays[name], how, counted, path)
    for name in known or rest
  }
  maps = values.get('samples') or next(iter(values.values()))
  others = [v for v in values.values() if v is not maps]
  labels, probs = _maps(maps)
  weight, equal = _weight(arrays, len(labels), path)
  if others:
    probs = _with_samples(others[-1])
    if len(probs) not in (1, len(labels)):
      raise UserError(f'{path}: {len(labels)} samples and {len(probs)} of their probabilities')
  mean = None
  if probs is not None:
    mean = probs[0] if len(probs) == 1 else np.einsum('nhwc,n->hwc', probs, weight)
  kind = 'label maps' if maps.kind == 'ids' else maps.kind
  kind += f' with {others[-1].kind}' if others else ''
  return Stored(labels.astype(label_type(how.classes)), weight, kind, equal, mean)


def _understood(name: str, raw: np.ndarray, how: Reading, counted: np.ndarray, path: Any) -> Values:
  """As interpret.understood; [N, H, W] of floats are the second of two classes in each sample."""
  size = counted.shape
  if raw.dtype.kind == 'f' and raw.shape[-2:] == size and raw.ndim in (2, 3):
    whole = bool(np.isfinite(raw).all()) and bool((raw == np.round(raw)).all())
    if whole and not (raw.ndim == 3 and (raw.sum(0) == 1).all()):
      raise UserError(
        f'{path}: whole numbers of type {raw.dtype}, such as {raw.max():g}; ids are integers\n'
        '  write them with .astype(np.uint8)'
      )
    if raw.ndim == 3 and how.classes == 2 and (name == 'samples' or len(raw) > 2):
      raw, name = raw[..., None], 'samples'
  return understood(name, raw, how, counted, path)


def _with_samples(values: Values) -> np.ndarray:
  """Probabilities [N, H, W, C]."""
  x = values.array if values.array.ndim == 4 else values.array[None]
  return np.asarray(jax.nn.softmax(x)) if values.kind == 'logits' else x


def _maps(values: Values) -> tuple[np.ndarray, np.ndarray | None]:
  """Class ids [N, H, W], the lowest of equally likely ones, and the probabilities if there are."""
  if values.kind == 'ids':
    return values.array.reshape(-1, *values.array.shape[-2:]), None
  probs = _with_samples(values)
  return probs.argmax(-1), probs


def _equal(n: int) -> np.ndarray:
  return np.full(n, 1 / n, np.float32)


def _weight(arrays: Arrays, n: int, path: Any) -> tuple[np.ndarray, bool]:
  """The weights of N samples, summing to one, and whether they are equal. Raises UserError."""
  name = next((name for name in WEIGHTS if name in arrays), None)
  if name is None:
    return _equal(n), True
  raw = arrays[name]
  if raw.dtype.kind not in 'fiu' or raw.shape != (n,):
    raise UserError(
      f'{path}: {name} of type {raw.dtype} and shape {raw.shape}; expected one for each of the '
      f'{n} samples'
    )
  weight = np.asarray(raw, np.float64)
  if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
    raise UserError(
      f'{path}: {name} from {weight.min():g} to {weight.max():g}\n'
      '  a weight is a number of at least 0, and one of an image is larger'
    )
  positive = weight[weight > 0]
  return (weight / weight.sum()).astype(np.float32), bool(np.ptp(positive) <= 1e-6 * positive.max())


def raw_readers(paths: Sequence[pathlib.Path], at: int | None = None) -> np.ndarray:
  """Labels as they are in the files, of volumes in slice `at`: integers [M, H, W].

  Raises UserError by path.
  """
  parts: list[np.ndarray] = []
  for path in paths:
    arrays = foreign.open_arrays(path, at)
    name = next((name for name in READERS if name in arrays), next(iter(arrays), ''))
    if not arrays or (len(arrays) > 1 and name not in READERS):
      raise UserError(f'{path} holds {sorted(arrays)}\n  name the labels {" or ".join(READERS)}')
    x = arrays[name]
    if x.dtype.kind not in 'iub':
      raise UserError(f'{path}: labels of type {x.dtype}\n  write them with .astype(np.uint8)')
    if x.ndim not in (2, 3) or not x.size:
      raise UserError(f'{path}: labels of shape {x.shape}; expected [H, W] or readers [M, H, W]')
    x = x.reshape(-1, *x.shape[-2:])
    if len(paths) > 1 and len(x) > 1:
      raise UserError(f'{path} holds {len(x)} readers, one of {len(paths)} files of its image')
    if parts and x.shape[1:] != parts[0].shape[1:]:
      one, two = (f'{w} x {h}' for h, w in (parts[0].shape[1:], x.shape[1:]))
      raise UserError(f'{paths[0]} has {one} pixels, {path} {two}: readers of one image')
    parts.append(x)
  return np.concatenate(parts)
