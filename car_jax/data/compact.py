"""Batches in bytes, as they travel, and what a device makes of them: the batch of methods/base.py.

What the pipeline makes has these keys in another form, a quarter of the size or less:
  image     [B, H, W, 1 or 3] uint8; so target and student, of two domains
  labels    [B, M, H, W] uint8; so label, target_label and black_box
  reader    [B] uint8: which of the labels is `label`
  frame     [B, 6] int32, of two domains: a `Frame` of each image; target_frame of the target's
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.typing import Array

Batch = Mapping[str, Any]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB from 0 to 1
GTA5_MEAN, GTA5_STD = (0.481, 0.479, 0.465), (0.243, 0.239, 0.237)
CITYSCAPES_MEAN, CITYSCAPES_STD = (0.300, 0.344, 0.297), (0.175, 0.180, 0.177)
PADDED = -1  # the label of pixels outside the image

IMAGES = {'image': 'frame', 'target': 'target_frame', 'student': 'target_frame'}
LABELS = {'labels': '', 'label': 'frame', 'target_label': 'target_frame', 'black_box': ''}
UNIT = 2.0**-22  # multiples of it up to 4 are exact in float32


class Frame(NamedTuple):
  """Where the image is in its window, the first row and column and those after the last; which
  label is outside; and whether the colours are renormalised. Outside is ImageNet's mean."""

  top: Any
  bottom: Any
  left: Any
  right: Any
  label: Any
  renormalised: Any

  @classmethod
  def of(cls, inside: np.ndarray, label: int, renormalised: bool) -> np.ndarray:
    """Of pixels [.., H, W] that are a rectangle or none: int32 [.., 6]."""
    ends = [end for axis in (-1, -2) for end in _ends(inside.any(axis))]
    rest = (np.full(inside.shape[:-2], x) for x in (label, renormalised))
    return np.stack([*ends, *rest], -1).astype(np.int32)

  def inside(self, height: int, width: int) -> Array:
    """bool [.., H, W]"""
    top, bottom, left, right = (jnp.asarray(x)[..., None, None] for x in self[:4])
    row, column = jnp.arange(height)[:, None], jnp.arange(width)
    return (row >= top) & (row < bottom) & (column >= left) & (column < right)


def _ends(there: Any) -> tuple[np.ndarray, np.ndarray]:
  """Of bool [.., N]: the first that is there and the one after the last; equal where none is."""
  first = there.argmax(-1)
  last = there.shape[-1] - there[..., ::-1].argmax(-1)
  return first, np.where(there.any(-1), last, first)


def renormalised() -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation that bring GTA5's colours to where Cityscapes' are under ImageNet's.

  Published runs use them for SYNTHIA too.
  """
  ours, theirs = (np.array(s) for s in ((GTA5_MEAN, GTA5_STD), (CITYSCAPES_MEAN, CITYSCAPES_STD)))
  ratio = ours[1] / theirs[1]
  return ours[0] - ratio * (theirs[0] - np.array(MEAN)), ratio * np.array(STD)


def _lines() -> np.ndarray:
  """float32 [2, 4, 3]: what levels are multiplied by and moved by, plain and renormalised, each as
  a multiple of UNIT and the rest; by channel."""
  mean, std = renormalised()
  ratio = np.array(STD) / std
  lines = [(np.full(3, 2 / 255), np.full(3, -1.0))]
  lines += [(2 * ratio / 255, 2 * (np.array(MEAN) - mean * ratio) - 1)]
  coarse = np.round(np.array(lines) / UNIT) * UNIT
  return np.concatenate([coarse, np.array(lines) - coarse], 1).astype(np.float32)


def scaled(image: Array, again: Array | None = None) -> Array:
  """uint8 [.., H, W, 1 or 3] -> float32 [.., H, W, 3] in [-1, 1], each value rounded once.

  again [..]: whether colours are renormalised, to what nets make ImageNet's scale of. A table would
  be exact too, but looking up is slow on a TPU. Here products with the multiples of UNIT and their
  sum are exact, and the rest is too small to round otherwise for any of the 256 levels.
  """
  plain, moved = _lines()
  chosen: Any = plain
  if again is not None:
    chosen = jnp.where(jnp.asarray(again, bool)[..., None, None], moved, plain)
  by, to, by_rest, to_rest = (chosen[..., k, :][..., None, None, :] for k in range(4))
  level = jnp.asarray(image).astype(jnp.float32)
  return (level * by + to) + (level * by_rest + to_rest)


def is_compact(batch: Batch) -> bool:
  """Whether there is anything to expand."""
  return any(k in batch and batch[k].dtype == np.uint8 for k in (*IMAGES, *LABELS))


def expand(batch: Batch) -> dict[str, Array]:
  """A batch of bytes -> the one that methods get; arrays of other types stay as they are."""
  full = {k: v for k, v in batch.items() if k not in ('reader', *IMAGES.values())}
  frames = {k: Frame(*jnp.moveaxis(batch[k], -1, 0)) for k in IMAGES.values() if k in batch}
  for key, frame in IMAGES.items():
    if key in batch and batch[key].dtype == np.uint8:
      full[key] = _image(batch[key], frames.get(frame))
  for key, frame in LABELS.items():
    if key in batch and batch[key].dtype == np.uint8:
      full[key] = _label(batch[key], frames.get(frame))
  if 'reader' in batch:
    drawn = jnp.arange(full['labels'].shape[-3]) == batch['reader'][..., None]
    labels = jnp.where(drawn[..., None, None], full['labels'], 0)
    full['label'] = jnp.sum(labels, -3, dtype=jnp.int32)
  return full


def _image(image: Array, frame: Frame | None) -> Array:
  if frame is None:
    return scaled(image)
  outside = np.float32(2 * np.array(MEAN) - 1)
  inside = frame.inside(*image.shape[-3:-1])[..., None]
  return jnp.where(inside, scaled(image, frame.renormalised), outside)


def _label(label: Array, frame: Frame | None) -> Array:
  label = jnp.asarray(label, jnp.int32)
  if frame is None:
    return label
  return jnp.where(frame.inside(*label.shape[-2:]), label, frame.label[..., None, None])


_expand = jax.jit(expand)


def numbers(batch: Batch) -> dict[str, Any]:
  """What of a batch goes to a device: all but texts, such as ids."""
  return {k: v for k, v in batch.items() if v.dtype.kind in 'biuf'}


def expanded(batch: Batch) -> dict[str, np.ndarray]:
  """A batch of the pipeline as methods/base.py has it, on the host, to be looked at."""
  given = numbers(batch)
  texts = {k: v for k, v in batch.items() if k not in given}
  return (jax.device_get(_expand(given)) if is_compact(given) else given) | texts
