"""Do the probabilities mean what they say? Bin sums, ECE, reliability tables, NLL, Brier score.

Letters: B examples, M readers, H x W pixels, C classes, R rows of N pixels, K bins.
  probs [B, H, W, C], labels [B, M, H, W] integers, label_weight [B, M]
Several readers make the truth a distribution: a pixel's truth is the share of readers (weighted by
`label_weight`; weight 0 is padding) that say a class, and a pixel counts once whatever the number
of readers. `ignore`: a reader who gave this label abstains at that pixel; a pixel without any
reader left is not counted. Rows of padding images (`valid` False) are not counted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

Array = jax.Array

FLOOR = 1e-7
PIECE = 64  # pixels added one by one


class BinSums(NamedTuple):
  """Per-bin sums from which every calibration error follows; two of them merge by addition."""

  pixels: Array  # [R, K] how many, int32
  conf: Array  # [R, K] summed confidence, float32
  hits: Array  # [R, K] summed truth: share of readers that agree, float32


def bin_sums(conf: Array, hits: Array, valid: Array, num_bins: int = 15) -> BinSums:
  """conf and hits [R, N] in [0, 1], valid [R, N] bool -> BinSums of [R, num_bins].

  Bin k is (k/K, (k+1)/K]; a confidence of exactly 0 joins the first bin, exactly 1 the last.
  bfloat16 confidences are binned after conversion to float32. Rows stay apart because millions of
  float32 additions into one cell drift; `Streaming` adds them in float64. Within a row the drift of
  two thousand equal values is still 2e-5, hence the pieces.
  """
  conf, hits = conf.astype(jnp.float32), hits.astype(jnp.float32)
  piece = jnp.arange(conf.shape[1]) // PIECE
  shape = (-(-conf.shape[1] // PIECE), num_bins)
  bins = jnp.clip(jnp.ceil(conf * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)

  def row(k, c, hit, ok):
    add = lambda v, t: jnp.zeros(shape, t).at[piece, k].add(jnp.where(ok, v, 0).astype(t)).sum(0)
    return BinSums(add(1, jnp.int32), add(c, jnp.float32), add(hit, jnp.float32))

  return jax.vmap(row)(bins, conf, hits, valid)


def top_label_sums(
  probs, labels, label_weight, valid=None, *, num_bins: int = 15, ignore: int | None = None
) -> BinSums:
  """Confidence of the likeliest class against the share of readers that say it -> [BH, K]."""
  weight, seen = _votes(labels, label_weight, valid, ignore)
  said = jnp.argmax(probs, -1)[:, None] == labels
  hits = jnp.sum(jnp.where(said, weight, 0.0), 1)
  return bin_sums(_rows(jnp.max(probs, -1)), _rows(hits), _rows(seen), num_bins)


def class_sums(
  probs,
  labels,
  label_weight,
  valid=None,
  *,
  class_id: int = 1,
  num_bins: int = 15,
  ignore: int | None = None,
) -> BinSums:
  """Probability of one class against the share of readers that say it -> [BH, K]."""
  weight, seen = _votes(labels, label_weight, valid, ignore)
  share = jnp.sum(jnp.where(labels == class_id, weight, 0.0), 1)
  return bin_sums(_rows(probs[..., class_id]), _rows(share), _rows(seen), num_bins)


def listed_sums(
  probs, labels, label_weight, valid=None, *, classes: tuple[int, ...] = (), num_bins: int = 10
) -> BinSums:
  """MoSE's published form (ICLR 2023) -> [BH, K]; its ECE is `ece(sums, pixels=all pixels)`.

  One class listed: its probability. Otherwise the likeliest class's, where that class is listed
  (none listed: any). A confidence of exactly 0 and other classes' pixels are in no bin, yet the
  error is divided by all pixels.
  """
  weight, seen = _votes(labels, label_weight, valid, None)
  if len(classes) == 1:
    said = jnp.full(probs.shape[:-1], classes[0])
    conf = probs[..., classes[0]]
  else:
    said, conf = jnp.argmax(probs, -1), jnp.max(probs, -1)
    seen &= jnp.isin(said, jnp.asarray(classes or range(probs.shape[-1])))
  hits = jnp.sum(jnp.where(said[:, None] == labels, weight, 0.0), 1)
  return bin_sums(_rows(conf), _rows(hits), _rows(seen & (conf > 0)), num_bins)


def ece(sums: BinSums, pixels: int | None = None) -> float:
  """BinSums of [K] -> expected calibration error in [0, 1]; nan when nothing was counted.

  `pixels`: divide by this many instead of those in the bins.
  """
  n = np.sum(sums.pixels) if pixels is None else pixels
  return float(np.sum(np.abs(sums.conf - sums.hits)) / n) if n else float('nan')


class Reliability(NamedTuple):
  """A reliability diagram, each [K]: bin edges' upper ends, pixels, mean confidence and truth.

  The means of an empty bin are nan.
  """

  upper: np.ndarray
  pixels: np.ndarray
  confidence: np.ndarray
  frequency: np.ndarray


def reliability(sums: BinSums) -> Reliability:
  """BinSums of [K] -> the table behind a reliability diagram."""
  pixels = np.asarray(sums.pixels)
  with np.errstate(invalid='ignore'):
    means = np.asarray(sums.conf) / pixels, np.asarray(sums.hits) / pixels
  return Reliability(np.arange(1, len(pixels) + 1) / len(pixels), pixels, *means)


def nll(probs, labels, label_weight, *, ignore: int | None = None) -> Array:
  """-log p of the readers' labels, mean over readers and pixels -> [B] nats; p at least 1e-7.

  nan for an image without a reader or without a pixel that counts; the same holds for `brier`.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  losses = -jnp.sum(truth * jnp.log(jnp.maximum(probs.astype(jnp.float32), FLOOR)), -1)
  return _pixel_mean(losses, seen)


def brier(probs, labels, label_weight, *, ignore: int | None = None) -> Array:
  """Sum over classes of (p - 1[label])^2, mean over readers and pixels -> [B], in [0, 2].

  Its minimum is not 0 where readers differ: it is reached by p = their shares.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  # mean_m |p - onehot_m|^2 = |p - share|^2 + 1 - |share|^2, without one array per reader
  losses = jnp.sum((probs.astype(jnp.float32) - truth) ** 2 - truth**2, -1) + 1
  return _pixel_mean(losses, seen)


def kl_to_readers(probs, labels, label_weight, *, ignore: int | None = None) -> Array:
  """KL(probs || readers' shares), both clamped to at least 1e-7, mean over pixels -> [B].

  The published score for selecting a calibration net. The clamp makes it a finite number where the
  readers agree; it is then about p log(p / 1e-7), so it is no distance to be reported.
  """
  truth, seen = _shares(probs, labels, label_weight, ignore)
  p = jnp.maximum(probs.astype(jnp.float32), FLOOR)
  return _pixel_mean(jnp.sum(p * (jnp.log(p) - jnp.log(jnp.maximum(truth, FLOOR))), -1), seen)


def reader_entropy(probs, labels, label_weight, *, ignore: int | None = None) -> Array:
  """Entropy of the readers' shares, mean over pixels -> [B]: the floor that `nll` cannot beat."""
  truth, seen = _shares(probs, labels, label_weight, ignore)
  return _pixel_mean(-jnp.sum(xlogy(truth, truth), -1), seen)


def _votes(labels, label_weight, valid, ignore) -> tuple[Array, Array]:
  """Each reader's share of a pixel's vote [B, M, H, W], and which pixels have voters [B, H, W]."""
  weight = jnp.asarray(label_weight, jnp.float32)[..., None, None]
  weight = jnp.broadcast_to(weight, labels.shape)
  if ignore is not None:
    weight = jnp.where(labels == ignore, 0.0, weight)
  total = jnp.sum(weight, 1)
  seen = total > 0
  if valid is not None:
    seen &= valid[:, None, None]
  return weight / jnp.where(total > 0, total, 1.0)[:, None], seen


def _shares(probs, labels, label_weight, ignore) -> tuple[Array, Array]:
  """The readers' class shares [B, H, W, C], and which pixels count [B, H, W]."""
  labels = jnp.asarray(labels)
  weight, seen = _votes(labels, label_weight, None, ignore)
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
