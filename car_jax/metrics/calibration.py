"""Do the probabilities mean what they say? Bin sums, ECE, reliability tables, NLL, Brier score.

Letters: B examples, M readers, H x W pixels, C classes, R rows of N pixels, K bins.
Several readers make the truth a distribution: a pixel's truth is the share of readers (weighted by
`label_weight`; weight 0 is padding) that say a class, and a pixel counts once whatever the number
of readers. `ignore`: a reader who gave this label abstains at that pixel; a pixel without any
reader left is not counted.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Bool, Float, Int32, Integer, Real, Shaped

from car_jax.typing import Array

FLOOR = 1e-7
PIECE = 64  # pixels added one by one


Probs = Float[Array, 'B H W C']
Labels = Integer[Array, 'B M H W']
Weight = Real[Array, 'B M']


class BinSums(NamedTuple):
  """Per-bin sums from which every calibration error follows; two of them merge by addition."""

  pixels: Integer[Array, '*R K']
  conf: Float[Array, '*R K']  # summed confidence
  hits: Float[Array, '*R K']  # summed truth: share of readers that agree


class Confidence(NamedTuple):
  """Of each pixel: how sure, how right, and whether it counts."""

  conf: Float[Array, 'B H W']
  hits: Float[Array, 'B H W']  # share of readers that agree
  seen: Bool[Array, 'B H W']


def bin_sums(
  conf: Float[Array, 'R N'],
  hits: Shaped[Array, 'R N'],
  valid: Bool[Array, 'R N'],
  num_bins: int = 15,
) -> BinSums:
  """Of each row, the sums by bin of its confidences; conf and hits are in [0, 1].

  Bin k is (k/K, (k+1)/K]; a confidence of exactly 0 joins the first bin, exactly 1 the last.
  bfloat16 confidences are binned after conversion to float32. Rows stay apart because millions of
  float32 additions into one cell drift; `Streaming` adds them in float64. Within a row the drift of
  two thousand equal values is still 2e-5, hence the pieces.
  """
  dtype = jnp.result_type(float)  # float64 where it is enabled
  conf, hits = conf.astype(dtype), hits.astype(dtype)
  piece = jnp.arange(conf.shape[1]) // PIECE
  shape = (-(-conf.shape[1] // PIECE), num_bins)
  bins = bins_of(conf, num_bins)

  def row(k, c, hit, ok):
    add = lambda v, t: jnp.zeros(shape, t).at[piece, k].add(jnp.where(ok, v, 0).astype(t)).sum(0)
    return BinSums(add(1, jnp.int32), add(c, dtype), add(hit, dtype))

  return jax.vmap(row)(bins, conf, hits, valid)


def bins_of(conf: Float[Array, '*at'], num_bins: int) -> Int32[Array, '*at']:
  """The bins of `bin_sums`."""
  k = jnp.ceil(conf.astype(jnp.result_type(float)) * num_bins).astype(jnp.int32) - 1
  return jnp.clip(k, 0, num_bins - 1)


def piecewise_sum(x: Float[Array, 'R N']) -> Float[Array, ' R']:
  """Sums of rows, in pieces of PIECE, so that float32 rounding does not add up."""
  while x.shape[1] > 1:
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % PIECE))).reshape(len(x), -1, PIECE).sum(-1)
  return x[:, 0]


def top_label_sums(
  probs: Probs,
  labels: Labels,
  label_weight: Weight,
  *,
  num_bins: int = 15,
  ignore: int | None = None,
) -> BinSums:
  """Confidence of the likeliest class against the share of readers that say it -> [BH, K]."""
  found = top_label(probs, labels, label_weight, ignore=ignore)
  return bin_sums(_rows(found.conf), _rows(found.hits), _rows(found.seen), num_bins)


def top_label(
  probs: Probs, labels: Labels, label_weight: Weight, *, ignore: int | None = None
) -> Confidence:
  """Probability of the likeliest class, and the share of readers that say it."""
  weight, seen = votes(labels, label_weight, ignore)
  agree = jnp.argmax(probs, -1)[:, None] == labels
  return Confidence(jnp.max(probs, -1), jnp.sum(jnp.where(agree, weight, 0.0), 1), seen)


def class_sums(
  probs: Probs,
  labels: Labels,
  label_weight: Weight,
  *,
  class_id: int = 1,
  num_bins: int = 15,
  ignore: int | None = None,
) -> BinSums:
  """Probability of one class against the share of readers that say it -> [BH, K]."""
  found = one_class(probs, labels, label_weight, class_id=class_id, ignore=ignore)
  return bin_sums(_rows(found.conf), _rows(found.hits), _rows(found.seen), num_bins)


def one_class(
  probs: Probs,
  labels: Labels,
  label_weight: Weight,
  *,
  class_id: int = 1,
  ignore: int | None = None,
) -> Confidence:
  """Probability of one class, and the share of readers that say it."""
  weight, seen = votes(labels, label_weight, ignore)
  share = jnp.sum(jnp.where(labels == class_id, weight, 0.0), 1)
  return Confidence(probs[..., class_id], share, seen)


def listed_sums(
  probs: Probs,
  labels: Labels,
  label_weight: Weight,
  *,
  classes: tuple[int, ...] = (),
  num_bins: int = 10,
  ignore: int | None = None,
) -> BinSums:
  """MoSE's published form (ICLR 2023) -> [BH, K]; its ECE is `ece(sums, pixels=all pixels)`.

  One class listed: its probability. Otherwise the likeliest class's, where that class is listed
  (none listed: any). A confidence of exactly 0 and other classes' pixels are in no bin, yet the
  error is divided by all pixels. Published without `ignore`: there an ignored label is a class.
  """
  weight, seen = votes(labels, label_weight, ignore)
  if len(classes) == 1:
    predicted = jnp.full(probs.shape[:-1], classes[0])
    conf = probs[..., classes[0]]
  else:
    predicted, conf = jnp.argmax(probs, -1), jnp.max(probs, -1)
    seen &= jnp.isin(predicted, jnp.asarray(classes or range(probs.shape[-1])))
  hits = jnp.sum(jnp.where(predicted[:, None] == labels, weight, 0.0), 1)
  return bin_sums(_rows(conf), _rows(hits), _rows(seen & (conf > 0)), num_bins)


def ece(sums: BinSums, pixels: float | np.number | None = None) -> float:
  """BinSums of [K] -> expected calibration error in [0, 1]; nan when nothing was counted.

  `pixels`: divide by this many instead of those in the bins.
  """
  n = np.sum(sums.pixels) if pixels is None else pixels
  return float(np.sum(np.abs(sums.conf - sums.hits)) / n) if n else float('nan')


def mce(sums: BinSums) -> float:
  """BinSums of [K] -> the largest gap between confidence and truth of any bin; nan without any."""
  gaps = _gaps(sums)
  return float(np.max(gaps)) if len(gaps) else float('nan')


def _gaps(sums: BinSums) -> np.ndarray:
  """|confidence - truth| of the bins that are not empty."""
  pixels = np.asarray(sums.pixels, np.float64)
  full = pixels > 0
  return np.abs(np.asarray(sums.conf) - np.asarray(sums.hits))[full] / pixels[full]


class Tied(NamedTuple):
  """Pixels by confidence, ascending: how many, their summed confidence and hits.

  One group for every value (`tied`) gives exact errors, one for every bin of a fine histogram gives
  errors within `tied_bound`.
  """

  pixels: Real[np.ndarray, ' K']
  conf: Float[np.ndarray, ' K']
  hits: Float[np.ndarray, ' K']


def tied(conf: Float[Array, ' N'], hits: Shaped[Array, ' N']) -> Tied:
  """A group for each distinct confidence, sums in float64."""
  values, group, pixels = np.unique(conf, return_inverse=True, return_counts=True)
  hits = np.bincount(group.reshape(-1), np.asarray(hits, np.float64).reshape(-1), len(values))
  return Tied(pixels, pixels * values.astype(np.float64), hits)


def binned(
  groups: Tied, num_bins: int = 15, *, zero: bool = True, closed: str = 'right'
) -> BinSums:
  """Bins (k/K, (k+1)/K] of equal width; a confidence of exactly 0 joins the first.

  zero=False: it is in none, as published (arXiv 2303.11298). closed='left': [k/K, (k+1)/K), and 1
  alone in one more bin, as torchmetrics has them; they differ where confidences lie on edges.
  """
  k = bin_of(_means(groups), num_bins, closed)
  inside = (k >= 0) | zero
  size, k = num_bins + (closed == 'left'), np.maximum(k, 0)
  add = lambda x: np.bincount(k[inside], np.asarray(x)[inside], size)
  return BinSums(*(add(x) for x in groups))


def bin_of(conf: np.ndarray, num_bins: int, closed: str = 'right') -> np.ndarray:
  """Confidences [K] as float32 -> their bins, see `binned`; -1 for a confidence of exactly 0."""
  conf = np.asarray(conf, np.float32)
  if closed == 'right':
    return np.ceil(conf * np.float32(num_bins)).astype(int) - 1
  # as torch.linspace rounds k/K: float32 steps from the nearer end, added in one operation
  step, at = float(np.float32(1 / num_bins)), np.arange(num_bins + 1)
  edges = np.where(at < (num_bins + 1) // 2, at * step, 1 - (num_bins - at) * step)
  return np.searchsorted(edges.astype(np.float32), conf, side='right') - 1


def average_gap(sums: BinSums) -> float:
  """BinSums of [K] -> mean over the bins that are not empty of |confidence - truth|, unweighted.

  The average calibration error of arXiv 2401.08501, with 20 bins there. A bin of few pixels counts
  as much as any.
  """
  gaps = _gaps(sums)
  return float(np.mean(gaps)) if len(gaps) else float('nan')


def adaptive_ece(groups: Tied, num_bins: int = 15) -> float:
  """ECE over bins that hold equally many pixels, as nearly as ties allow; nan where there is none.

  The edges are interpolated in the sorted confidences, bins are open below, and the pixels of the
  lowest confidence join the first bin. Equal edges leave bins empty: equal confidences stay
  together.
  """
  return _adaptive(groups, num_bins, slice(1, -1))


def adaptive_ece_relis(groups: Tied, num_bins: int = 15) -> float:
  """`adaptive_ece` as published with RELIS (arXiv 2303.11298).

  The first bin is open below as well, so that the pixels of the very lowest confidence are in no
  bin. Where they are many the error is too small: 0 where all pixels have one confidence.
  """
  return _adaptive(groups, num_bins, slice(None))


def _adaptive(groups: Tied, num_bins: int, used: slice) -> float:
  n = np.sum(groups.pixels)
  if not n:
    return float('nan')
  conf, ends = _means(groups), np.cumsum(groups.pixels)
  value = lambda place: conf[np.searchsorted(ends, np.minimum(place, n - 1), side='right')]
  place = np.linspace(0, n, num_bins + 1)
  whole = np.floor(place)
  low, high = value(whole), value(whole + 1)
  edges = (low + (place - whole) * (high - low))[used]
  k = np.searchsorted(edges, conf, side='left')
  gaps = np.bincount(k, groups.conf - groups.hits, len(edges) + 1)
  outside = 0 if len(edges) < num_bins else 1  # published: below the first edge is no bin
  return float(np.sum(np.abs(gaps[outside:])) / n)


def ks_error(groups: Tied) -> float:
  """Largest difference of cumulated confidence and cumulated truth, over all pixels; no bins.

  Kolmogorov-Smirnov calibration error (arXiv 2006.12800), looked at between different confidences
  only, so that the order of equal ones does not matter.
  """
  n = np.sum(groups.pixels)
  return float(np.max(np.abs(np.cumsum(groups.conf - groups.hits))) / n) if n else float('nan')


def tied_bound(groups: Tied, num_bins: int = 15, *, spread: Any = 0.0) -> tuple[float, float]:
  """The largest errors of `adaptive_ece` and `ks_error` where groups are bins of a histogram.

  spread: by how much confidences differ within a group, a number or [K]. Parts of a group that an
  edge cuts may lie in other bins, and add at most the sum of its pixels' distances |confidence -
  truth|, twice. KS: within a group the running sum strays most where all hits come first or last.
  No error exceeds what is left of [0, 1] around the value.
  """
  n, conf = np.sum(groups.pixels), _means(groups)
  if not n:
    return float('nan'), float('nan')
  misses, loose = groups.pixels - groups.hits, groups.pixels * spread
  place = np.floor(np.linspace(0, n, num_bins + 1))
  ranks = np.minimum(np.concatenate([place, place + 1]), n - 1)
  cut = np.unique(np.searchsorted(np.cumsum(groups.pixels), ranks, side='right'))
  apart = groups.hits * (1 - conf) + misses * conf + loose
  stray = np.maximum(groups.hits * (1 - conf), misses * conf) + loose
  bounds = 2 * np.sum(apart[cut]) / n, np.max(stray) / n
  values = adaptive_ece(groups, num_bins), ks_error(groups)
  most = lambda bound, value: float(min(bound, max(value, 1 - value)))
  return most(bounds[0], values[0]), most(bounds[1], values[1])


def _means(groups: Tied) -> np.ndarray:
  """Mean confidence of each group; an empty group gets its neighbour's below."""
  full = groups.pixels > 0
  last = np.maximum.accumulate(np.where(full, np.arange(len(full)), 0))
  with np.errstate(invalid='ignore', divide='ignore'):
    means = np.nan_to_num(groups.conf / groups.pixels)
  return means[last]


class Reliability(NamedTuple):
  """A reliability diagram: bin edges' upper ends, pixels, mean confidence and truth.

  The means of an empty bin are nan.
  """

  upper: Float[np.ndarray, ' K']
  pixels: Real[np.ndarray, ' K']
  confidence: Float[np.ndarray, ' K']
  frequency: Float[np.ndarray, ' K']


def reliability(sums: BinSums) -> Reliability:
  """BinSums of [K] -> the table behind a reliability diagram."""
  pixels = np.asarray(sums.pixels)
  with np.errstate(invalid='ignore'):
    means = np.asarray(sums.conf) / pixels, np.asarray(sums.hits) / pixels
  return Reliability(np.arange(1, len(pixels) + 1) / len(pixels), pixels, *means)


def nll(
  probs: Probs, labels: Labels, label_weight: Weight, *, ignore: int | None = None
) -> Float[Array, ' B']:
  """-log p of the readers' labels, mean over readers and pixels, in nats; p at least 1e-7.

  nan for an image without a reader or without a pixel that counts; the same holds for `brier`.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  losses = -jnp.sum(truth * jnp.log(jnp.maximum(probs.astype(jnp.float32), FLOOR)), -1)
  return _pixel_mean(losses, seen)


def brier(
  probs: Probs, labels: Labels, label_weight: Weight, *, ignore: int | None = None
) -> Float[Array, ' B']:
  """Sum over classes of (p - 1[label])^2, mean over readers and pixels, in [0, 2].

  Its minimum is not 0 where readers differ: it is reached by p = their shares.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  # mean_m |p - onehot_m|^2 = |p - share|^2 + 1 - |share|^2, without one array per reader
  losses = jnp.sum((probs.astype(jnp.float32) - truth) ** 2 - truth**2, -1) + 1
  return _pixel_mean(losses, seen)


def kl_to_readers(
  probs: Probs, labels: Labels, label_weight: Weight, *, ignore: int | None = None
) -> Float[Array, ' B']:
  """KL(probs || readers' shares), both clamped to at least 1e-7, mean over pixels.

  The published score for selecting a calibration net. The clamp makes it a finite number where the
  readers agree; it is then about p log(p / 1e-7), so it is no distance to be reported.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  p = jnp.maximum(probs.astype(jnp.float32), FLOOR)
  return _pixel_mean(jnp.sum(p * (jnp.log(p) - jnp.log(jnp.maximum(truth, FLOOR))), -1), seen)


def reader_entropy(
  probs: Probs, labels: Labels, label_weight: Weight, *, ignore: int | None = None
) -> Float[Array, ' B']:
  """Entropy of the readers' shares, mean over pixels: the floor that `nll` cannot beat."""
  truth, seen = _shares(probs, labels, label_weight, ignore)
  return _pixel_mean(-jnp.sum(xlogy(truth, truth), -1), seen)


def votes(
  labels: Labels, label_weight: Weight, ignore: int | None
) -> tuple[Float[Array, 'B M H W'], Bool[Array, 'B H W']]:
  """Each reader's share of a pixel's vote, and which pixels have voters.

  This says which pixels count, for the scores of probabilities and of label maps alike.
  """
  weight = jnp.asarray(label_weight, jnp.float32)[..., None, None]
  weight = jnp.broadcast_to(weight, labels.shape)
  if ignore is not None:
    weight = jnp.where(labels == ignore, 0.0, weight)
  total = jnp.sum(weight, 1)
  return weight / jnp.where(total > 0, total, 1.0)[:, None], total > 0


def _shares(probs, labels, label_weight, ignore) -> tuple[Array, Array]:
  """The readers' class shares [B, H, W, C], and which pixels count [B, H, W]."""
  labels = jnp.asarray(labels)
  weight, seen = votes(labels, label_weight, ignore)
  classes = jnp.arange(probs.shape[-1])

  def add(m, total):
    # One reader at a time: [B, M, H, W, C] never exists.
    return total + weight[:, m, ..., None] * (labels[:, m, ..., None] == classes)

  return jax.lax.fori_loop(0, labels.shape[1], add, jnp.zeros(probs.shape)), seen


def _rows(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _pixel_mean(values: Array, seen: Array) -> Array:
  """[B, H, W] -> [B], rows first; nan for an image without a pixel that counts."""
  total = jnp.sum(jnp.sum(jnp.where(seen, values, 0.0), -1), -1)
  return total / jnp.sum(seen, (1, 2))
