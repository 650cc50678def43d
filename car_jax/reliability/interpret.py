"""What the numbers of a prediction's file mean: logits, probabilities, samples or classes alone.

Their kind is what the file or the user calls them. Where neither does, it follows from the pixels
that count, and only where there is no doubt. Letters: N samples, H x W pixels of the label, h x w
of the array, C classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from car_jax.errors import UserError
from car_jax.metrics import scores

KINDS = ('logits', 'probabilities', 'samples')
KNOWN = KINDS[:2]  # what a user may say of arrays without a name
FLOOR = 1e-12  # of probabilities, before their logarithm
SLACK = 1e-6  # beyond 0 and 1
MASKS = 'car-jax score --classes 0:background,255:foreground'
CLASSES_ONLY = 'classes_only'  # marks a prediction that says classes and no confidence


@dataclasses.dataclass(frozen=True)
class Reading:
  """How arrays are to be read: their number of classes C; kind '', or one of KNOWN, of those that
  have no name; resize '', or bilinear; values: which numbers of maps are which class, where they
  are no class ids."""

  classes: int
  kind: str = ''
  resize: str = ''
  values: Mapping[int, int] = dataclasses.field(default_factory=dict)

  def ids(self, raw: np.ndarray, path: Any, void: int | None = None) -> np.ndarray:
    """Class ids of a map of `values`; `void` stays. Raises UserError for another number."""
    if not self.values:
      return raw
    out = np.full(raw.shape, -1, np.int32)
    if void is not None and void not in self.values:
      out[raw == void] = void
    for value, id in self.values.items():
      out[raw == value] = id
    if (wrong := raw[out < 0]).size:
      known = ', '.join(map(str, self.values))
      raise UserError(
        f'{path}: a map has {int(wrong[0])}; --classes names {known}\n'
        f'  a class may have several: add {int(wrong[0])}:NAME where predictions hold class ids'
      )
    return out


@dataclasses.dataclass(frozen=True)
class Values:
  """One array of a file, understood: class ids [(N,) H, W], or of each class logits or
  probabilities float32 [(N,) H, W, C]. kind: 'ids', 'logits' or 'probabilities'."""

  kind: str
  array: np.ndarray


def understood(name: str, raw: np.ndarray, how: Reading, counted: np.ndarray, path: Any) -> Values:
  """The array that a file calls `name`, one of KINDS, or '' where it has no such name.

  counted: bool [H, W], pixels whose label counts. Raises UserError by path.
  """
  if not raw.size:
    raise UserError(f'{path}: an array of shape {raw.shape}, without a number')
  if raw.dtype.kind in 'iub':
    raw = how.ids(raw, path)
    return Values('ids', _checked_ids(raw, name, how, counted.shape, path))
  if raw.dtype.kind != 'f' and raw.dtype != jax.numpy.bfloat16:
    raise UserError(f'{path}: numbers of type {raw.dtype}; expected float32, or class ids')
  with np.errstate(over='ignore'):  # refused below, as not finite
    x = np.asarray(raw, np.float32)
  x, single = _classes_last(x, name, how, counted.shape, path)
  _check_finite(x, name, path)
  if x.shape[-3:-1] != counted.shape:
    x = _resized(x, counted.shape, path)
  stated = name if name in KNOWN else how.kind
  likely = _are_probabilities(x, stated, counted, single, path)
  if single:
    x = np.concatenate([1 - x if likely else np.zeros_like(x), x], -1)
  return Values('probabilities' if likely else 'logits', x)


def predicted(
  arrays: Mapping[str, np.ndarray], how: Reading, counted: np.ndarray, path: Any
) -> tuple[dict[str, np.ndarray], bool]:
  """logits [H, W, C] float32, and disagreement and features where the file has them.

  And whether the file gave logits, whose size means something, and not probabilities or samples.
  counted: as in `understood`. A map of class ids [H, W] becomes logits that are certain, and has
  the entry CLASSES_ONLY. Raises UserError by path.
  """
  values = understood(*_chosen(arrays, path), how, counted, path)
  extra, x = _features(arrays, path), values.array
  if values.kind == 'ids':
    return extra | _of_ids(x, how.classes), False
  likely = values.kind == 'probabilities'
  if x.ndim == 3:
    return extra | {'logits': np.log(np.maximum(x, FLOOR)) if likely else x}, not likely
  return extra | _of_samples(x if likely else np.asarray(jax.nn.softmax(x))), False


def _chosen(arrays: Mapping[str, np.ndarray], path: Any) -> tuple[str, np.ndarray]:
  """The array that is scored and its name if that says its kind."""
  names = [k for k in KINDS if k in arrays]
  if not names and len(arrays) != 1:
    raise UserError(f'{path} holds {sorted(arrays)}; name one of them {" or ".join(KINDS)}')
  return (names[0], arrays[names[0]]) if names else ('', next(iter(arrays.values())))


def _features(arrays: Mapping[str, np.ndarray], path: Any) -> dict[str, np.ndarray]:
  if 'features' not in arrays:
    return {}
  x = arrays['features']
  if (x.dtype.kind not in 'fiu' and x.dtype != jax.numpy.bfloat16) or x.ndim != 1 or not x.size:
    raise UserError(f'{path}: features of type {x.dtype} and shape {x.shape}; expected floats [D]')
  x = np.asarray(x, np.float32)
  if not np.isfinite(x).all():
    raise UserError(f'{path}: {(~np.isfinite(x)).sum()} of {x.size} features are not finite')
  return {'features': x}


def _checked_ids(
  raw: np.ndarray, kind: str, how: Reading, size: tuple[int, ...], path: Any
) -> np.ndarray:
  """Class ids of samples [N, H, W], or of one map [H, W] that says no confidence."""
  binary = raw.dtype != bool or how.classes == 2
  if kind in KNOWN or not binary or raw.ndim not in (2, 3) or raw.shape[-2:] != size:
    raise UserError(
      f'{path}: whole numbers of type {raw.dtype} and shape {raw.shape}; of class ids expected '
      f'samples [N, {size[0]}, {size[1]}] or one map [{size[0]}, {size[1]}]\n'
      f'  save {kind if kind in KNOWN else "logits or probabilities"} as floats'
    )
  if (wrong := raw[(raw < 0) | (raw >= how.classes)]).size:
    two = {*np.unique(raw)} == {0, 255}
    masks = '\n  write masks as (mask > 0).astype(np.uint8)' if two else ''
    masks += f', or score them with {MASKS}' if two else ''
    raise UserError(f'{path}: class id {wrong[0]}; expected 0 to {how.classes - 1}{masks}')
  return raw


def _of_ids(raw: np.ndarray, classes: int) -> dict[str, np.ndarray]:
  ids = raw.reshape(-1, *raw.shape[-2:])
  mean = np.stack([(ids == c).mean(0) for c in range(classes)], -1).astype(np.float32)
  logits = {'logits': np.log(np.maximum(mean, FLOOR))}
  if raw.ndim == 2:
    return logits | {CLASSES_ONLY: np.array(True)}
  return logits | {'disagreement': np.asarray(scores.entropy(mean))}


def _naming(count: int) -> str:
  """How as many classes are named."""
  names = ('background', 'foreground') if count == 2 else ('NAME', 'NAME', '..')
  quoted = ','.join(f"'{name}'" for name in names)
  return f'car-jax score: --classes {",".join(names)}; a study: --config.classes="({quoted})"'


def _check_finite(x: np.ndarray, kind: str, path: Any) -> None:
  """A logit may be -inf, but not those of all classes of a pixel."""
  if np.isfinite(x).all():
    return
  nan = np.isnan(x).sum()
  if nan or kind == 'probabilities' or (x == np.inf).any():
    raise UserError(f'{path}: {nan or (~np.isfinite(x)).sum()} of {x.size} values are not finite')
  if none := np.isneginf(x).all(-1).sum():
    raise UserError(f'{path}: {none} pixels have no class, all their logits are -inf')


def _classes_last(
  x: np.ndarray, kind: str, how: Reading, size: tuple[int, ...], path: Any
) -> tuple[np.ndarray, bool]:
  """[.., h, w, C] of an array that has its classes last or before the pixels, and whether it is
  [.., h, w, 1] instead, the second class alone. One leading axis of length one is taken off."""
  if x.ndim == 4 and len(x) == 1 and kind != 'samples':
    x = x[0]
  if x.ndim == 2 and how.classes == 2 and x.shape == size:
    x = x[..., None]
  if x.ndim not in (3, 4):
    raise UserError(f'{path}: shape {x.shape}{_expected(size, how)}')
  for classes in (how.classes, 1) if how.classes == 2 else (how.classes,):
    last, first = x.shape[-1] == classes, x.shape[-3] == classes
    sizes = x.shape[-3:-1] if last else (), x.shape[-2:] if first else ()
    for axis, here in zip((-1, -3), sizes, strict=True):
      if here == size or (how.resize and here and _of_one_shape(here, size)):
        return np.moveaxis(x, axis, -1), classes < how.classes
  for axis, here in ((-1, x.shape[-3:-1]), (-3, x.shape[-2:])):
    if here == size:
      raise UserError(
        f'{path}: {x.shape[axis]} classes; {how.classes} are named\n  {_naming(x.shape[axis])}'
      )
    if x.shape[axis] == how.classes and not how.resize and _of_one_shape(here, size):
      raise UserError(
        f'{path}: {here[0]} x {here[1]} pixels; its label is {size[0]} x {size[1]}\n'
        '  give --resize bilinear to bring the array to the size of the label'
      )
  raise UserError(
    f'{path}: shape {x.shape}; its label is {size[0]} x {size[1]}{_expected(size, how)}'
  )


def _expected(size: tuple[int, ...], how: Reading) -> str:
  h, w = size
  return f'\n  expected [{h}, {w}, {how.classes}] or [{how.classes}, {h}, {w}]'


def _of_one_shape(here: tuple[int, ...], size: tuple[int, ...]) -> bool:
  """Whether one is the other at another scale, but for the rounding of sides."""
  (h, w), (height, width) = here, size
  smaller, larger = h < height and w < width, h > height and w > width
  return min(h, w) > 0 and (smaller or larger) and abs(h * width - w * height) <= max(h, w, *size)


def _resized(x: np.ndarray, size: tuple[int, ...], path: Any) -> np.ndarray:
  """[.., h, w, C] -> [.., H, W, C]: bilinear between the centres of pixels, as torch's
  interpolate with align_corners=False."""
  if not np.isfinite(x).all():
    raise UserError(f'{path}: logits of -inf cannot be resized\n  write those of its full size')
  shape = (*x.shape[:-3], *size, x.shape[-1])
  return np.asarray(jax.image.resize(x, shape, 'bilinear', antialias=False))


def _are_probabilities(
  x: np.ndarray, stated: str, counted: np.ndarray, single: bool, path: Any
) -> bool:
  """Whether x [.., H, W, C] (of one channel: [.., H, W, 1]) holds probabilities.

  Raises UserError where they are called so and are not, and where they may be so but need not.
  """
  seen = x[..., counted, :] if counted.any() else x.reshape(-1, x.shape[-1])
  within = bool(seen.min() >= -SLACK and seen.max() <= 1 + SLACK)
  if single:
    if stated == 'probabilities' and not within:
      raise UserError(f'{path}: probabilities from {seen.min():g} to {seen.max():g}')
    return stated != 'logits' and within
  if stated == 'logits':
    return False
  total = seen.sum(-1)
  off = np.abs(total - 1) >= 1e-2
  if within and not off.any():
    return True
  first = float(total.flat[0])
  if stated == 'probabilities':
    what = f'do not sum to one at {off.sum():,} of {off.size:,} pixels that count'
    raise UserError(f'{path}: the probabilities {what if within else "leave 0 to 1"}')
  alike = first > 1e-2 and bool((np.abs(total - first) < 1e-2 * first).all())
  if within or (seen.min() >= 0 and alike):
    span = 'all numbers lie between 0 and 1, but' if within else 'as percentages would,'
    span += f' they sum to {first:.4g}' if alike else ' not all sum to one over the classes'
    raise UserError(
      f'{path}: logits or probabilities? {span} ({off.sum():,} of {off.size:,} pixels that count)\n'
      f'  give --kind logits, or write probabilities that sum to one; an array called logits or '
      'probabilities in an .npz says what it is'
    )
  return False


def _of_samples(probs: np.ndarray) -> dict[str, np.ndarray]:
  """probs [N, H, W, C] of samples -> logarithms of their mean, and their disagreement."""
  mean = probs.mean(0)
  spread = np.asarray(scores.entropy(mean)) - np.asarray(scores.entropy(probs)).mean(0)
  return {'logits': np.log(np.maximum(mean, FLOOR)), 'disagreement': np.maximum(spread, 0)}
