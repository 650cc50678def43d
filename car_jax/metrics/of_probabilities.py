"""Scores of class probabilities against the readers' shares, see metrics/calibration.py.

The probabilities are the mean of the samples', or `own`: those that a method states itself.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from car_jax.metrics import calibration, confusion_matrix, flips
from car_jax.metrics.base import UNSURE, Metric, Outputs, PerImage, Source, Traits
from car_jax.metrics.reader_texts import OF_READERS
from car_jax.typing import Array

LOSSES = dict(nll=calibration.nll, brier=calibration.brier, kl=calibration.kl_to_readers)
BINS = 15  # of reliability diagrams


def left_out(traits: Traits) -> str:
  return '' if traits.confidence else UNSURE


def probabilities(outputs: Outputs, own: bool) -> Array | None:
  return outputs.own if own else outputs.mean


def named(kind: str, own: bool, samples: int, *parts: str, ignore: str = '') -> str:
  """The convention of a score."""
  whose = 'own probabilities' if own else f'mean of {samples}'
  return f'{kind}[{", ".join(filter(None, (whose, *parts, ignore)))}]'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss(PerImage):
  """A mean over the pixels of an image; kind: one of LOSSES."""

  kind: str
  samples: int
  own: bool = False
  ignore: int | None = None

  @property
  def about(self):
    return OF_READERS[self.kind]

  @property
  def convention(self):
    return named(self.kind, self.own, self.samples, ignore=_ignoring(self.ignore))

  def left_out(self, traits):
    return left_out(traits)

  def score(self, outputs, batch):
    probs = probabilities(outputs, self.own)
    if probs is None:
      return None
    return LOSSES[self.kind](probs, batch['labels'], batch['label_weight'], ignore=self.ignore)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationError(Metric):
  """ECE. top: of the likeliest class, not of class 1. classes: MoSE's form, of these alone, over
  all pixels; ignored says then whether the ignored label is a class."""

  samples: int
  own: bool = False
  top: bool = False
  bins: int = BINS
  classes: tuple[int, ...] | None = None
  ignore: int | None = None
  ignored: str = 'void'

  @property
  def about(self):
    return OF_READERS['ece']

  @property
  def convention(self):
    which = 'top label' if self.top else 'class 1'
    if self.classes is not None:
      which = 'listed classes=' + '+'.join(map(str, self.classes))
    a_class = self.classes is not None and self.ignored == 'class'
    ignore = _ignoring(self.ignore, 'class' if a_class else 'ignore')
    return named('ece', self.own, self.samples, which, f'{self.bins} bins', ignore=ignore)

  def left_out(self, traits):
    return left_out(traits)

  def state(self, outputs, batch):
    probs = probabilities(outputs, self.own)
    if probs is None:
      return None
    if self.classes is None:
      return bins(probs, batch, top=self.top, num_bins=self.bins, ignore=self.ignore)
    labels, weight = batch['labels'], batch['label_weight']
    ignore = None if self.ignored == 'class' else self.ignore
    kw: dict[str, Any] = dict(classes=self.classes, num_bins=self.bins, ignore=ignore)
    sums = calibration.listed_sums(probs, labels, weight, **kw)
    pixels = jnp.sum(calibration.votes(labels, weight, ignore)[1], (1, 2), dtype=jnp.int32)
    return _per_image(sums, len(probs), self.bins) | {'divisor': pixels}

  def compute(self, total):
    sums = dict(total)
    divisor = sums.pop('divisor', None)
    return calibration.ece(calibration.BinSums(**sums), divisor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanIoU(Metric):
  """IoU of the likeliest class with the readers, pooled over images, averaged over classes."""

  samples: int
  classes: tuple[int, ...]
  num_classes: int
  own: bool = False
  ignore: int | None = None

  @property
  def about(self):
    return OF_READERS['miou']

  @property
  def convention(self):
    classes = 'classes=' + '+'.join(map(str, self.classes))
    return named('miou', self.own, self.samples, classes, ignore=_ignoring(self.ignore))

  def state(self, outputs, batch):
    probs = probabilities(outputs, self.own)
    if probs is None:
      return None
    said = jnp.argmax(probs, -1)
    return {'confusion': confused(said, batch, self.num_classes, self.ignore)}

  def compute(self, total):
    return confusion_matrix.mean_iou(total['confusion'], self.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlipError(Metric):
  """How far the frequencies of flipped classes are from the known ones; see metrics/flips.py."""

  samples: int
  flips: tuple[flips.Flip, ...]
  pixels: bool = False

  @property
  def about(self):
    return OF_READERS['flip_error']

  @property
  def convention(self):
    return f'flip_error[{self.samples} samples{", pixels" if self.pixels else ""}]'

  def state(self, outputs, batch):
    counts = flips.flip_counts(batch['labels'][:, 0], outputs.labels, self.flips)
    return {'counts': flips.weighted_counts(counts, outputs.weight)}

  def compute(self, total):
    return flips.frequency_error(total['counts'], self.flips, pixels=self.pixels)


@dataclasses.dataclass(frozen=True)
class Diagram(Source):
  """The bins of a reliability diagram, of the mean or of the own probabilities."""

  own: bool
  top: bool
  ignore: int | None

  @property
  def source_name(self):
    return 'bins/own' if self.own else 'bins/mean'

  def state(self, outputs, batch):
    probs = probabilities(outputs, self.own)
    if probs is None:
      return None
    return bins(probs, batch, top=self.top, num_bins=BINS, ignore=self.ignore)

  def total(self, rows, whole):
    return calibration.reliability(calibration.BinSums(**rows))


@dataclasses.dataclass(frozen=True)
class FlipDetails(Source):
  """What figures show of flips: counts [B, F, 3], masses [B, modes]; and where a method states
  probabilities, those of the classes [B, C] and their pixels."""

  flips: tuple[flips.Flip, ...]

  @property
  def source_name(self):
    return 'flips'

  def state(self, outputs, batch):
    label = batch['labels'][:, 0]  # the mode without any flip
    counts = flips.flip_counts(label, outputs.labels, self.flips)
    details = {
      'counts': flips.weighted_counts(counts, outputs.weight),
      'masses': flips.mode_masses(counts, outputs.weight),
    }
    if outputs.own is not None:
      seen = batch.get('black_box', label)
      details |= flips.class_sums(outputs.own, label, seen, self.flips)._asdict()
    return details


def bins(
  probs: Array, batch: Any, *, top: bool, num_bins: int, ignore: int | None
) -> dict[str, Array]:
  """BinSums of [B, K]: of the likeliest class (top), or of class 1 against its readers' share.

  probs [B, H, W, C]; num_bins and ignore as in metrics/calibration.py.
  """
  kernel = calibration.top_label_sums if top else calibration.class_sums
  rows = kernel(probs, batch['labels'], batch['label_weight'], num_bins=num_bins, ignore=ignore)
  return _per_image(rows, len(probs), num_bins)


def _per_image(rows: calibration.BinSums, images: int, num_bins: int) -> dict[str, Array]:
  """BinSums of [BH, K] -> of [B, K]"""
  return {k: jnp.sum(v.reshape(images, -1, num_bins), 1) for k, v in rows._asdict().items()}


def confused(predicted: Array, batch: Any, num_classes: int, ignore: int | None) -> Array:
  """Pixels by reader's class and predicted class [B, C, C]; a pixel's readers share one vote."""
  classes = jnp.arange(num_classes)
  votes, _ = calibration.votes(batch['labels'], batch['label_weight'], ignore)

  def add(m, total):
    truth = batch['labels'][:, m, ..., None] == classes
    return total + jnp.einsum('bhwc,bhwd->bcd', truth * votes[:, m, ..., None], prediction)

  prediction = (predicted[..., None] == classes).astype(jnp.float32)
  start = jnp.zeros((len(predicted), num_classes, num_classes))
  return jax.lax.fori_loop(0, batch['labels'].shape[1], add, start)


@dataclasses.dataclass(frozen=True)
class Votes(Source):
  """What the labels hold: votes for each class [B, C], pixels that count and all pixels [B].

  A pixel counts where some reader does not give the ignored label; its readers share one vote.
  """

  num_classes: int
  ignore: int | None

  @property
  def source_name(self):
    return 'votes'

  def state(self, outputs, batch):
    votes, seen = calibration.votes(batch['labels'], batch['label_weight'], self.ignore)
    of_class = lambda c: jnp.sum(jnp.where(batch['labels'] == c, votes, 0.0), (1, 2, 3))
    classes = jax.lax.map(of_class, jnp.arange(self.num_classes))
    counted = jnp.sum(seen, (1, 2), dtype=jnp.int32)
    return {
      'classes': classes.T,
      'counted': counted,
      'pixels': jnp.full_like(counted, seen[0].size),
    }


def _ignoring(ignore: int | None, word: str = 'ignore') -> str:
  return '' if ignore is None else f'{word}={ignore}'
