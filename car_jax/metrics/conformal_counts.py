"""Counts from which conformal thresholds follow, on a grid of probabilities, in one pass.

Letters: B images, N pixels, C classes, R rows such as readers, K edges. {p >= edge} is counted
exactly, so the losses at the edges are exact; counts add up over batches, and losses of images are
made from the counts of each image. `GRID` has its edges at k / 1024, where binning a float32
multiplies by a power of two and is exact; other grids are searched.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from car_jax.typing import Array

STEPS = 1024
GRID = np.arange(STEPS + 1, dtype=np.float32) / STEPS
FORMS = ('mean', 'marking', 'worst', 'union', 'majority', 'share')


def bins(p: Float[Array, '*at'], edges: Float[Array, ' K'] = GRID) -> Int32[Array, '*at']:
  """Bin k holds edge_k <= p < edge_(k+1); the last one all from its edge on.

  edges [K]: ascending float32, the first at most as large as any p.
  """
  if edges is GRID:
    k = jnp.floor(p.astype(jnp.float32) * STEPS).astype(jnp.int32)
    return jnp.clip(k, 0, STEPS)
  k = jnp.searchsorted(jnp.asarray(edges, jnp.float32), p.astype(jnp.float32), side='right') - 1
  return jnp.clip(k, 0, len(edges) - 1).astype(jnp.int32)


def histogram(
  p: Float[Array, 'B N'], weight: Integer[Array, 'B R N'], edges: Float[Array, ' K'] = GRID
) -> Int32[Array, 'B R K']:
  """How often each bin is met, every pixel counted `weight` times: 1 where it is to be found."""
  k, size = bins(p, edges), len(edges)
  rows = weight.shape[1]
  at = jnp.arange(rows)[:, None] * size
  count = lambda k, w: jnp.zeros(rows * size, jnp.int32).at[(at + k).reshape(-1)].add(w.reshape(-1))
  return jax.vmap(count)(k, weight.astype(jnp.int32)).reshape(-1, rows, size)


def label_counts(
  own: Float[Array, ' N'],
  right: Bool[Array, ' N'],
  labels: Integer[Array, ' N'],
  counted: Bool[Array, ' N'],
  *,
  classes: int,
  edges: Float[Array, ' K'] = GRID,
) -> Int32[Array, '2 C K']:
  """Pixels by whether the likeliest class is right (1, else 0), label, and bin of its probability.

  own: the probability of the label. One scatter of one number for each pixel, from which follow
  `miscoverage`, `balanced` and `class_fnr`.
  """
  size = len(edges)
  at = (right.astype(jnp.int32) * classes + labels.astype(jnp.int32)) * size + bins(own, edges)
  at = jnp.where(counted, at, 2 * classes * size)
  counts = jnp.zeros(2 * classes * size, jnp.int32).at[at].add(1, mode='drop')
  return counts.reshape(2, classes, size)


def image_label_counts(
  probs: Float[Array, 'B N C'],
  labels: Integer[Array, 'B N'],
  *,
  void: int = 255,
  edges: Float[Array, ' K'] = GRID,
) -> Int32[Array, 'B 2 C K']:
  """`label_counts` of images. Labels that are void, or of no class, do not count."""
  classes = probs.shape[-1]
  labels = jnp.asarray(labels, jnp.int32)
  counted = (labels >= 0) & (labels < classes) & (labels != void)
  index = jnp.where(counted, labels, 0)
  own = jnp.take_along_axis(probs, index[..., None], -1)[..., 0]
  right = jnp.argmax(probs, -1) == index
  one = lambda *x: label_counts(*x, classes=classes, edges=edges)
  return jax.vmap(one)(own, right, index, counted)


def above(counts: np.ndarray) -> np.ndarray:
  """Counts by bin [.., K] -> how many are in {p >= edge} [.., K], int64."""
  return np.cumsum(np.asarray(counts, np.int64)[..., ::-1], -1)[..., ::-1]


def fnr(counts: np.ndarray) -> np.ndarray:
  """Counts of the pixels to be found [.., K] -> the share that {p >= edge} misses; nan of none."""
  met = above(counts)
  return 1 - _share(met, met[..., :1])


def fdr(positives: np.ndarray, every: np.ndarray) -> np.ndarray:
  """Counts of pixels to be found and of all [.., K] -> the share of {p >= edge} that is wrong.

  Wrong pixels are fewer in smaller sets, but not always: this is the largest share at this edge or
  any above, and 0 where nothing is above. It falls along K, and the safe end is the last: give
  `conformal.choose` values and losses turned round, with largest=inf.
  """
  right, size = above(positives), above(every)
  wrong = np.where(size > 0, 1 - _share(right, np.maximum(size, 1)), 0.0)
  return np.maximum.accumulate(wrong[..., ::-1], -1)[..., ::-1]


def miscoverage(counts: np.ndarray, *, top: bool = True) -> np.ndarray:
  """label counts [.., 2, C, K] -> the share of pixels whose label is not in {p_c >= edge} [.., K].

  top: the likeliest class is always in the set (LAC, arXiv 1609.00451). nan without a pixel.
  """
  pooled = np.sum(counts, -2, keepdims=True)
  return 1 - _coverage(pooled, top)[..., 0, :]


def balanced(counts: np.ndarray, *, top: bool = True) -> np.ndarray:
  """The mean over the label's classes of `miscoverage` [.., K]."""
  missed = 1 - _coverage(counts, top)
  there = ~np.isnan(missed)
  return _share(np.nansum(missed, -2), there.sum(-2))


def class_fnr(counts: np.ndarray) -> np.ndarray:
  """Of each class the share of its pixels outside {p_c >= edge} [.., C, K], nan where it is not.

  A threshold for each class is a promise for each by itself, of the images that have it: take
  alpha / C for all of them together, or the worst class of an image as its loss.
  """
  return 1 - _coverage(counts, top=False)


def uncovered(missed: np.ndarray, tau: float) -> np.ndarray:
  """Whether less than tau of an image is covered: 0 or 1, a bound on the share of such images."""
  return np.where(np.isnan(missed), np.nan, (1 - missed < tau - 1e-12).astype(np.float64))


def reader_weights(marks: Bool[Array, 'B M N'], form: str) -> Integer[Array, 'B R N']:
  """Masks of M readers -> what `histogram` is to count for `reader_losses` of this form."""
  if form not in FORMS:
    raise ValueError(f'form must be one of {FORMS}, not {form!r}')
  votes = jnp.sum(marks, 1, keepdims=True, dtype=jnp.int32)
  one = dict(union=votes > 0, majority=2 * votes > marks.shape[1], share=votes)
  return one.get(form, marks).astype(jnp.int32)


def reader_losses(counts: np.ndarray, form: str) -> np.ndarray:
  """Histograms [B, R, K] of `reader_weights` -> the loss of each image at each edge [B, K].

    mean      mean FNR over readers, 0 for one who marks nothing: of a random reader, which is also
              the promise for a new one where readers are drawn with images
    marking   mean over the readers who mark something
    worst     the largest FNR of any reader: for all of them at once
    union, majority   FNR of what any, or more than half of the readers mark
    share     FNR of pixels weighted by how many readers mark them
  nan for an image with nothing to find, but for 'mean'.
  """
  if form not in FORMS:
    raise ValueError(f'form must be one of {FORMS}, not {form!r}')
  missed = fnr(counts)
  marking = ~np.isnan(missed)
  if form == 'mean':
    return np.where(marking, missed, 0.0).mean(1)
  if form == 'worst':
    return np.where(marking.any(1), np.where(marking, missed, 0.0).max(1), np.nan)
  return _share(np.nansum(missed, 1), marking.sum(1))


def lac_sets(probs: Float[Array, '*at C'], threshold: Any) -> Bool[Array, '*at C']:
  """{c: p_c >= threshold} and the likeliest class (arXiv 1609.00451); lambda = 1 - threshold."""
  top = jnp.arange(probs.shape[-1]) == jnp.argmax(probs, -1)[..., None]
  return top | (probs >= threshold)


def aps_before(probs: Float[Array, '*at C'], label: Integer[Array, '*at']) -> Float[Array, '*at']:
  """The probability of the classes that are likelier than the label, which is the APS score.

  Of equal ones the first is likelier. A label is in the set of `aps_sets` if this is at most
  lambda, so a histogram of it, on any grid of lambdas, calibrates them.
  """
  own = jnp.take_along_axis(probs, label[..., None], -1)
  first = jnp.arange(probs.shape[-1]) < label[..., None]
  return jnp.sum(jnp.where((probs > own) | ((probs == own) & first), probs, 0), -1)


def aps_sets(probs: Float[Array, '*at C'], limit: Any) -> Bool[Array, '*at C']:
  """Likeliest classes up to the first whose cumulated probability exceeds lambda (2006.02544)."""
  full = lambda c: jnp.full(probs.shape[:-1], c)
  before = [aps_before(probs, full(c)) for c in range(probs.shape[-1])]
  return jnp.stack(before, -1) <= limit


def aps_counts(
  probs: Float[Array, 'B N C'],
  labels: Integer[Array, 'B N'],
  limits: Float[Array, ' K'] = GRID,
  *,
  void: int = 255,
) -> Int32[Array, 'B K+1']:
  """Labelled pixels that `aps_sets` first covers at each of the ascending lambdas, or at none."""
  classes = probs.shape[-1]
  labels = jnp.asarray(labels, jnp.int32)
  counted = (labels >= 0) & (labels < classes) & (labels != void)
  before = aps_before(probs, jnp.where(counted, labels, 0))
  k = jnp.searchsorted(jnp.asarray(limits, probs.dtype), before, side='left')
  size = len(limits)
  count = lambda k, ok: jnp.zeros(size + 1, jnp.int32).at[k].add(ok.astype(jnp.int32))
  return jax.vmap(count)(k, counted)


def aps_losses(counts: np.ndarray) -> np.ndarray:
  """`aps_counts` [.., K + 1] -> miscoverage at each lambda, the largest first [.., K].

  In the order of `conformal.choose`, so its values are limits[::-1].
  """
  met = np.cumsum(np.asarray(counts, np.int64), -1)
  return 1 - _share(met[..., -2::-1], met[..., -1:])


def _coverage(counts: np.ndarray, top: bool) -> np.ndarray:
  """The share of a class's pixels that are covered at each edge [.., C, K]."""
  met = above(counts)
  wrong, right = met[..., 0, :, :], met[..., 1, :, :]
  pixels = wrong[..., :1] + right[..., :1]
  return _share(wrong + (right[..., :1] if top else right), pixels)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """part / whole, nan where that is 0."""
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(whole > 0, part / whole, np.nan)
