"""Do the probabilities mean what they say? Bin sums, ECE, reliability tables, NLL, Brier score.

Letters: B examples, M readers, H x W pixels, C classes, R rows of N pixels, K bins.
Several readers make the truth a distribution: a pixel's truth is the share of readers (weighted by
`label_weight`; weight 0 is padding) that say a class, and a pixel counts once whatever the number
of readers. `ignore`: a reader who gave this label abstains at that pixel; a pixel without any
reader left is not counted.
"""

from typing import NamedTuple

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


def average_gap(sums: BinSums) -> float:
  """BinSums of [K] -> mean over the bins that are not empty of |confidence - truth|, unweighted.

  The average calibration error of arXiv 2401.08501, with 20 bins there. A bin of few pixels counts
  as much as any.
  """
  gaps = _gaps(sums)
  return float(np.mean(gaps)) if len(gaps) else float('nan')


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
