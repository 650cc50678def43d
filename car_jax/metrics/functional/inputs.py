"""A user's arguments as arrays with all their axes, or a sentence that says what is wrong.

Letters: B images, N samples, M readers, H x W pixels, C classes. An image alone gets an axis B. The
messages begin with the name of the function that was called.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, cast, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import nearest, reason
from car_jax.typing import Array

SUM_OFF = 1e-3  # by which probabilities may miss a sum of one
SUM_OFF_16 = 0.02  # the same where they have 16 bits
F = TypeVar('F', bound=Callable[..., Any])
OF_ONE_CLASS = 'of one class give stack([1 - p, p], -1)'
LEAVE_OUT, ONE_MORE = 'ignore={0}', 'num_classes={1}'  # what may be wrong where an id is


@runtime_checkable
class HasArray(Protocol):
  def __array__(self, *args: Any, **kw: Any) -> np.ndarray: ...


@runtime_checkable
class HasDLPack(Protocol):
  def __dlpack__(self, *args: Any, **kw: Any) -> Any: ...

  def __dlpack_device__(self) -> Any: ...


class Sets(NamedTuple):
  """Label maps of an image: samples and readers."""

  samples: Array  # [B, N, H, W]
  labels: Array  # [B, M, H, W]
  sample_weight: Array  # [B, N]
  label_weight: Array  # [B, M]
  alone: bool  # an image without an axis B


class Pixels(NamedTuple):
  """What is predicted at each pixel, and what the readers say there."""

  predicted: Array  # probabilities [B, H, W, C] or class ids [B, H, W]
  labels: Array  # int32 [B, M, H, W]
  label_weight: Array  # [B, M]
  alone: bool  # without an axis B


class Ranked(NamedTuple):
  """All of one shape."""

  score: Array
  positive: Array  # bool
  counted: Array  # bool


def named_keywords(function: F) -> F:
  """A function whose `**conventions: Unpack[..]` are checked: TypeError for another keyword."""
  own = inspect.signature(function).parameters
  (conventions,) = get_args(own['conventions'].annotation)
  known = [p.name for p in own.values() if p.kind is p.KEYWORD_ONLY]
  known += conventions.__annotations__
  taken = {*known, *own}

  @functools.wraps(function)
  def checked(*args: Any, **kw: Any) -> Any:
    for name in kw:
      if name not in taken:
        hint = nearest(name, known).strip()
        raise TypeError(f'{function.__name__} has no keyword {name!r}; {hint}')
    return function(*args, **kw)

  return cast(F, checked)


def array(what: str, x: Any) -> Array:
  """x as an array of jax (if it is one) or numpy; `what` names it. Raises TypeError."""
  if isinstance(x, jax.Array):
    return x
  if isinstance(x, np.ma.MaskedArray):
    raise TypeError(f'{what} are a masked array; give x.filled(k) and ignore=k, or counted=~x.mask')
  try:
    only_dlpack = isinstance(x, HasDLPack) and not isinstance(x, HasArray)
    return np.from_dlpack(x) if only_dlpack else np.asarray(x)
  except jax.errors.TracerArrayConversionError:  # a list of arrays under jit
    return jnp.asarray(x)
  except (ValueError, TypeError, RuntimeError, BufferError) as e:
    raise TypeError(f'{what} cannot be read as an array ({reason(e)})') from e


def sets(
  function: str,
  samples: Any,
  labels: Any,
  sample_weight: Any,
  label_weight: Any,
  num_classes: int,
  ignore: int | None,
) -> Sets:
  """samples [N, H, W] or [B, N, H, W]; labels the same with M, or without it for one reader."""
  samples = _shaped(f'{function}: samples', samples, {3: '[N, H, W]', 4: '[B, N, H, W]'}, 'labels')
  size = samples.shape[-2:]
  maps = _readers(function, labels, samples.shape[: samples.ndim - 3], size, 'samples')
  samples, alone = _ids(f'{function}: samples', samples), samples.ndim == 3
  samples = samples[None] if alone else samples
  weights = (
    _weight(f'{function}: sample_weight', sample_weight, samples.shape[:2]),
    _weight(f'{function}: label_weight', label_weight, maps.shape[:2]),
  )
  for what, ids, weight in zip(('samples', 'labels'), (samples, maps), weights, strict=True):
    if not all(ids.shape[1:]):
      raise ValueError(f'{function}: {what} of shape {ids.shape} hold no pixel')
    mends = LEAVE_OUT, ONE_MORE
    _check_ids(f'{function}: {what}', ids, _used(weight), num_classes, ignore, mends)
  return Sets(samples, maps, *weights, alone)


def probabilities(
  function: str, probs: Any, labels: Any, label_weight: Any, ignore: int | None
) -> Pixels:
  """probs [N, C], [H, W, C] or [B, H, W, C]; labels the same without C, or with M after B."""
  what = f'{function}: probs'
  shapes = {2: '[N, C]', 3: '[H, W, C]', 4: '[B, H, W, C]'}
  probs, labels = array(what, probs), array(f'{function}: labels', labels)
  _check_several(what, probs, labels)
  probs = _real(what, _shaped(what, probs, shapes, 'probabilities'))
  if probs.shape[-1] < 2:
    raise ValueError(
      f'{what} need two classes in their last axis, got shape {probs.shape}; {OF_ONE_CLASS}'
    )
  pixels = _of_readers(function, probs, probs.shape[:-1], labels, label_weight, 'probs')
  _check_sums(what, pixels, ignore)
  return _with_known_labels(function, pixels, probs.shape[-1], ignore, (LEAVE_OUT,))


def label_maps(
  function: str,
  predicted: Any,
  labels: Any,
  label_weight: Any,
  num_classes: int,
  ignore: int | None,
) -> Pixels:
  """predicted [N], [H, W] or [B, H, W]; labels the same, or with M after B."""
  what = f'{function}: predicted'
  shapes = {1: '[N]', 2: '[H, W]', 3: '[B, H, W]'}
  predicted = _ids(what, _shaped(what, predicted, shapes, 'class ids'))
  pixels = _of_readers(function, predicted, predicted.shape, labels, label_weight, 'predicted')
  # what is predicted where nobody knows the label does not matter
  counted = _counted(pixels, ignore)[:, None]
  _check_ids(what, pixels.predicted[:, None], counted, num_classes, None, (ONE_MORE,))
  return _with_known_labels(function, pixels, num_classes, ignore, (LEAVE_OUT, ONE_MORE))


def ranked(function: str, score: Any, positive: Any, counted: Any) -> Ranked:
  """score of any shape; positive, bool or 0 and 1, and counted, bool or None, of the same."""
  score = _real(f'{function}: score', array(f'{function}: score', score))
  positive = array(f'{function}: positive', positive)
  counted = np.ones(score.shape, bool) if counted is None else array(function, counted)
  for name, x in (('positive', positive), ('counted', counted)):
    if x.shape != score.shape:
      raise ValueError(f'{function}: {name} must have the shape of score {score.shape}: {x.shape}')
  if counted.dtype != bool:
    raise TypeError(f'{function}: counted must be bool, got {counted.dtype}')
  if positive.dtype != bool and not jnp.issubdtype(positive.dtype, jnp.integer):
    raise TypeError(f'{function}: positive must be bool or 0 and 1, got {positive.dtype}')
  if _known(score, positive, counted):
    used = np.asarray(positive)[np.asarray(counted)]
    if used.size and not 0 <= used.min() <= used.max() <= 1:
      raise ValueError(f'{function}: positive must be 0 and 1, got {used.min()} to {used.max()}')
    if nan := np.isnan(np.asarray(score)[np.asarray(counted)]).sum():
      raise ValueError(f'{function}: {nan} of {used.size} scores are nan')
  return Ranked(score, positive.astype(bool), counted)


def scored(
  function: str, classes: Sequence[int] | None, num_classes: int, ignore: int | None
) -> tuple[int, ...]:
  """`classes`, or by default all but 0 where there are two, else all; never the ignored one."""
  if num_classes < 2:
    raise ValueError(f'{function}: num_classes must be 2 or more, got {num_classes}')
  if classes is None:
    return tuple(c for c in range(int(num_classes == 2), num_classes) if c != ignore)
  ids = np.asarray(classes)
  if ids.ndim != 1 or not ids.size or not np.issubdtype(ids.dtype, np.integer):
    raise TypeError(f'{function}: classes must be ids such as (1,), got {classes!r}')
  if ids.min() < 0 or ids.max() >= num_classes:
    raise ValueError(f'{function}: classes {classes} are not all in 0 to {num_classes - 1}')
  return tuple(map(int, ids))


def per_image(values: Array, alone: bool) -> Any:
  """[B] -> a float for an image alone, else float64 [B]; under jit a jax array."""
  if not _known(values):
    return values[0] if alone else values
  return float(values[0]) if alone else np.asarray(values, np.float64)


def _known(*arrays: Array) -> bool:
  return not any(isinstance(x, jax.core.Tracer) for x in arrays)


def _shaped(what: str, x: Any, shapes: dict[int, str], kind: str) -> Array:
  x = array(what, x)
  if x.ndim not in shapes:
    raise ValueError(f'{what} must be {" or ".join(shapes.values())} {kind}, got shape {x.shape}')
  return x


def _ids(what: str, x: Array) -> Array:
  if x.dtype == bool:
    return x.astype(np.uint8)
  if not jnp.issubdtype(x.dtype, jnp.integer):
    raise TypeError(f'{what} must be class ids, whole numbers, got {x.dtype}')
  return x.astype(jnp.int32) if isinstance(x, jax.Array) else x


def _real(what: str, x: Array) -> Array:
  if x.dtype == bool or not jnp.issubdtype(x.dtype, jnp.number) or jnp.iscomplexobj(x):
    raise TypeError(f'{what} must be real numbers, got {x.dtype}')
  return x


def _of_readers(function, predicted, shape, labels, label_weight, like) -> Pixels:
  """`shape`: that of predicted without C."""
  lead, size = (shape[:1], shape[1:]) if len(shape) == 3 else ((), shape)
  maps = _readers(function, labels, lead, size, like)
  whole = (*(lead or (1,)), *(size if len(size) == 2 else (1, *size)))
  predicted = predicted.reshape(*whole, *predicted.shape[len(shape) :])
  maps = maps.reshape(*maps.shape[:2], *whole[1:])
  weight = _weight(f'{function}: label_weight', label_weight, maps.shape[:2])
  return Pixels(predicted, maps, weight, not lead)


def _readers(function: str, labels: Any, lead: tuple, size: tuple, like: str) -> Array:
  """labels [*lead, *size] or [*lead, M, *size], lead () or (B,) -> [B, M, *size]"""
  what, labels = f'{function}: labels', array(f'{function}: labels', labels)
  shape, before = labels.shape, len(lead)
  if labels.ndim == before + len(size):
    labels = labels[(slice(None),) * before + (None,)]
  if (labels.shape[:before], labels.shape[before + 1 :]) != (lead, size):
    first, pixels = f'{lead[0]}, ' if lead else '', ', '.join(map(str, size))
    forms = f'[{first}{pixels}] or [{first}M, {pixels}]'
    raise ValueError(f'{what} must be {forms} to go with {like}, got shape {shape}')
  labels = _ids(what, labels)
  return labels if lead else labels[None]


def _weight(what: str, weight: Any, shape: tuple[int, ...]) -> Array:
  """None, [X], or [B, X] -> float32 [B, X]"""
  if weight is None:
    return np.ones(shape, np.float32)
  weight = _real(what, array(what, weight))
  if weight.shape not in (shape, shape[1:]):
    raise ValueError(f'{what} must be {list(shape[1:])} or {list(shape)}, got shape {weight.shape}')
  if _known(weight) and not np.all((np.asarray(weight) >= 0) & (np.asarray(weight) < np.inf)):
    raise ValueError(f'{what} must be 0 or more and finite')
  return jnp.broadcast_to(jnp.asarray(weight, jnp.float32), shape)


def _check_ids(what, ids, counted, num_classes: int, ignore: int | None, mends) -> None:
  """Of maps [B, X, H, W], where `counted`, which is as large or 1; `mends` for the message."""
  if not _known(ids, counted) or not ids.size or (ids.min() >= 0 and ids.max() < num_classes):
    return
  ids = np.asarray(ids)
  wrong = ((ids < 0) | (ids >= num_classes)) & np.asarray(counted)
  if ignore is not None:
    wrong &= ids != ignore
  if np.any(wrong):
    value = int(ids[wrong][0])
    known = f'0 to {num_classes - 1}' + ('' if ignore is None else f', {ignore} ignored')
    mends = [m.format(value, value + 1) for m in mends if value >= 0 or m != ONE_MORE]
    mend = f'; give {" or ".join(mends)}?' if mends else ''
    raise ValueError(f'{what} hold {value}, but classes are {known}{mend}')


def _with_known_labels(function, pixels: Pixels, num_classes: int, ignore, mends) -> Pixels:
  """After the check ids fit into int32."""
  labels, read = pixels.labels, _used(pixels.label_weight)
  _check_ids(f'{function}: labels', labels, read, num_classes, ignore, mends)
  return pixels._replace(labels=labels.astype(np.int32))


def _used(weight: Array) -> Array:
  """[B, X] -> [B, X, 1, 1]"""
  return (weight > 0)[..., None, None]


def _counted(pixels: Pixels, ignore: int | None) -> Array:
  """Where some reader says something [B, H, W]."""
  said = jnp.broadcast_to(_used(pixels.label_weight), pixels.labels.shape)
  said = said if ignore is None else said & (pixels.labels != ignore)
  return said.any(1)


def _check_several(what: str, probs: Array, labels: Array) -> None:
  """Raises ValueError where the labels' shape tells that probs lack an axis of classes.

  Of one shape they may be [N, C] and [M, N] all the same: then they sum to one.
  """
  one = probs.shape == labels.shape
  if one and len({*probs.shape}) == 1 and probs.ndim > 1:
    one = _known(probs) and not np.allclose(np.sum(probs, -1), 1, atol=SUM_OFF_16)
  if one or probs.shape in (labels.shape[1:], labels.shape[:1] + labels.shape[2:]):
    raise ValueError(
      f'{what} need an axis of classes, got shape {probs.shape} with labels {labels.shape}; '
      f'{OF_ONE_CLASS}'
    )


def _check_sums(what: str, pixels: Pixels, ignore: int | None) -> None:
  counted = _counted(pixels, ignore)
  if not _known(pixels.predicted, counted):
    return
  probs = np.asarray(pixels.predicted)
  off = SUM_OFF_16 if probs.dtype.itemsize == 2 else SUM_OFF
  total, low = np.sum(probs.astype(np.float32), -1), np.min(probs, -1, initial=0)
  wrong = np.asarray(counted) & ~((np.abs(total - 1) <= off) & (low >= 0))
  if np.any(wrong):
    place = tuple(map(int, np.argwhere(wrong)[0]))
    about = f'those of image {place[0]} at {place[1:]} sum to {total[place]:.4g}'
    about += f', the lowest is {low[place]:.4g}' if low[place] < 0 else ''
    raise ValueError(f'{what} must sum to one over their last axis; {about}; logits? give softmax')
