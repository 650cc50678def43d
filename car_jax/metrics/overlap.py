"""Pixel overlaps of every pair of label maps, as matrix products.

Letters: B examples, L label maps, K scored classes, H x W pixels. The product of 0/1 maps over
pixels counts what two maps share, so all pairs of an image cost one [L, P] x [P, L] product and
never an array of pairs times pixels. Counts are exact: zeros and ones survive any product
precision, a float32 sum of at most `BLOCK` ones is exact, and the blocks are added as int32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int, Integer

from car_jax.typing import Array

BLOCK_ELEMENTS = 1 << 21  # one-hot elements held at a time: 8 MiB of float32 stay in a cache
BLOCK = 1 << 16  # pixels in a block at most
ABSENT = dict(one=1.0, zero=0.0, skip=float('nan'))  # what a class is worth that neither map has


class Overlap(NamedTuple):
  """Pixel counts of pairs (i, j) and class k.

  both: pixels where i and j are k; first, second: where i, or j, is k. Pixels that do not count for
  the pair belong to none of the three.
  """

  both: Int[Array, 'B L L K']
  first: Int[Array, 'B L L K']
  second: Int[Array, 'B L L K']


def overlap(
  labels: tuple[Integer[Array, 'B _ H W'], ...],
  classes: tuple[int, ...],
  ignore: int | None = None,
  *,
  known: tuple[Bool[Array, 'B _ H W'], ...] | None = None,
) -> Overlap:
  """Counts for all pairs of the label maps of an image.

  labels: parts of L1, L2, .. maps; they are numbered through, L in all. They are not joined, which
  spares a copy of the largest one. Which pixels count:
    known   for each part as many maps as it has or 1; a pixel counts for the pairs both of whose
            maps know it, so the counts are symmetric
    ignore  as in the published Cityscapes code: where the pair's second map does not hold this id,
            so the counts are not symmetric
  """
  images, pixels = labels[0].shape[0], labels[0].shape[2] * labels[0].shape[3]
  flat = lambda parts: [jnp.asarray(x).reshape(*x.shape[:2], pixels) for x in parts]
  parts = flat(labels)
  seen = None if known is None else flat(known)
  maps = sum(part.shape[1] for part in parts)
  fit = BLOCK_ELEMENTS // max(1, images * maps * len(classes))
  # A power of two keeps vector loads aligned and usually divides the image.
  block = min(pixels, BLOCK, 1 << max(7, fit.bit_length() - 1))
  ids = jnp.asarray(classes, jnp.int32)[:, None, None]

  def cut(arrays, start, length):
    return [lax.dynamic_slice_in_dim(x, start, length, axis=2) for x in arrays]

  def count(start, length, total):
    block = [x.astype(jnp.int32) for x in cut(parts, start, length)]
    counted = None
    if seen is not None:
      each = zip(cut(seen, start, length), block, strict=True)
      counted = jnp.concatenate([jnp.broadcast_to(w, x.shape) for w, x in each], 1)
    piece = _count(jnp.concatenate(block, 1), ids, ignore, counted)
    return jax.tree.map(jnp.add, total, piece)

  shape = (images, len(classes), maps, maps)
  sizes = shape[:3] if ignore is None and seen is None else shape
  others = shape if seen is not None else shape[:3]
  total, whole = tuple(jnp.zeros(s, jnp.int32) for s in (shape, sizes, others)), pixels // block
  total = lax.fori_loop(0, whole, lambda i, t: count(i * block, block, t), total)
  if pixels > whole * block:
    total = count(whole * block, pixels - whole * block, total)
  both, first, second = total
  first = first if first.ndim == 4 else first[..., None]
  second = second if second.ndim == 4 else second[:, :, None]
  outwards = lambda x: jnp.moveaxis(jnp.broadcast_to(x, shape), 1, -1)
  return Overlap(*map(outwards, (both, first, second)))


def _count(maps: Array, ids: Array, ignore: int | None, known: Array | None):
  """maps [B, L, P], ids [K, 1, 1], known [B, L, P] -> both [B, K, L, L], first [B, K, L(, L)],
  second [B, K, L(, L)]."""
  is_class = maps[:, None] == ids
  seen = known if known is not None else None if ignore is None else maps != ignore
  right = (is_class if seen is None else is_class & seen[:, None]).astype(jnp.float32)
  left = right if known is not None else is_class.astype(jnp.float32)
  both = jnp.einsum('bkip,bkjp->bkij', left, right)
  if seen is None:
    first = jnp.sum(left, -1)
  else:
    first = jnp.einsum('bkip,bjp->bkij', left, seen.astype(jnp.float32))
  second = jnp.sum(right, -1) if known is None else jnp.swapaxes(first, 2, 3)
  return tuple(x.astype(jnp.int32) for x in (both, first, second))


def iou(counts: Overlap) -> Float[Array, 'B L L K']:
  """Intersection over union per class; nan where neither map has the class."""
  union = counts.first + counts.second - counts.both
  return _ratio(counts.both, union)


def dice(counts: Overlap) -> Float[Array, 'B L L K']:
  """2 |A and B| / (|A| + |B|) per class; nan where neither map has the class."""
  size = counts.first + counts.second
  return _ratio(2 * counts.both, size)


def _ratio(part: Array, whole: Array) -> Array:
  part = part.astype(jnp.result_type(float))  # float64 where it is enabled
  return jnp.where(whole > 0, part / jnp.maximum(whole, 1), jnp.nan)


def class_mean(values: Float[Array, '*pair K'], absent: str) -> Float[Array, '*pair']:
  """Mean over classes. A class absent from both maps (nan) counts as 1, as 0, or is skipped.

  absent='one': perfect agreement; 'zero': none; 'skip': left out of the mean, which is nan if none
  is left.
  """
  if absent not in ABSENT:
    raise ValueError(f'absent must be one of {tuple(ABSENT)}, not {absent!r}')
  return jnp.nanmean(jnp.where(jnp.isnan(values), ABSENT[absent], values), -1)


def mirrored(matrix: Float[Array, 'B L L *K']) -> Float[Array, 'B L L *K']:
  """The same with (j, i) taken from (i, j) for i < j: the later map is second."""
  upper = jnp.arange(matrix.shape[1])[:, None] <= jnp.arange(matrix.shape[2])
  upper = upper.reshape(upper.shape + (1,) * (matrix.ndim - 3))
  return jnp.where(upper, matrix, jnp.swapaxes(matrix, 1, 2))
