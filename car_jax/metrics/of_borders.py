"""Scores near borders by name: boundary IoU, boundary F, calibration by distance to a border.

The device gives the maps, the host looks for borders. Pixels that a reader leaves void, or that
are of an unknown object, cut label and prediction alike (`void=cut`). Every reader gives a label.

Letters: B images, M readers, H x W pixels, C classes, L bands of distance, K bins of confidence.
"""

import dataclasses
import math
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from car_jax.metrics import border_calibration, boundary, calibration, pixel_counts
from car_jax.metrics.base import UNSURE, About, OfLabels, Outputs, Source, State
from car_jax.metrics.border_calibration import EDGES
from car_jax.metrics.confusion_matrix import known_mean, ratio
from car_jax.metrics.texts import BORDERS
from car_jax.typing import Array

IOU, F, NEAR = 'boundary_iou', 'boundary_f', 'ece_near'
WIDTH = {IOU: 0.02, F: 0.008}
ENDS = (0, *EDGES, math.inf)
STEPS = 65535  # of a confidence
ABOUT = {
  IOU: About(
    'boundary IoU',
    'high',
    'IoU of the strips along the inner side of predicted and true outlines, pooled over images, '
    'then averaged over classes. Large regions do not hide bad outlines.',
    BORDERS,
    True,
    'arXiv:2103.16562',
  ),
  F: About(
    'boundary F',
    'high',
    'Precision: the share of the predicted outline that is close to the true one; recall the '
    'reverse; F of both for each class of an image, averaged over images, then over classes. A '
    'class that neither map of an image has is skipped.',
    BORDERS,
    True,
    'CVPR 2016, DAVIS',
  ),
  NEAR: About(
    'ECE by distance to a border',
    'low',
    'ECE of the pixels at some distance from the nearest pixel of another class in the label: '
    "borders of the truth, never the prediction's, which would select by the outcome.",
    BORDERS,
    True,
  ),
}


def maps(outputs: Outputs, batch: State, ignore: int | None) -> dict[str, Array]:
  """predicted [B, H, W] and labels [B, M, H, W], C where void, in one byte up to 255 classes."""
  logits = outputs.logits
  classes = logits.shape[-1]
  known = pixel_counts.known(batch, classes, ignore)
  if 'unknown' in batch:
    known &= ~batch['unknown'][:, None]
  small = jnp.uint8 if classes <= 255 else jnp.int32
  return {
    'predicted': jnp.argmax(logits, -1).astype(small),
    'labels': jnp.where(known, batch['labels'], classes).astype(small),
  }


def pairs(state: dict[str, np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
  """Each image's place with each of its readers' labels and the prediction."""
  for i, (predicted, labels) in enumerate(zip(state['predicted'], state['labels'], strict=True)):
    for label in labels:
      yield i, predicted, label


@dataclasses.dataclass(frozen=True)
class Boundaries(Source):
  """Of each image and class: `kind` added over readers and how many have it, and for boundary IoU
  pixels in both and in either band [C, 2]. width: see `boundary.width` and `boundary.radius`."""

  kind: str
  width: float
  classes: int
  ignore: int | None

  @property
  def source_name(self):
    return f'{self.kind}/{self.width:g}'

  def state(self, outputs, batch):
    return maps(outputs, batch, self.ignore)

  def kept(self, state):
    n, c = len(state['predicted']), self.classes
    rows = dict(sum=np.zeros((n, c)), maps=np.zeros((n, c), int), pixels=np.zeros((n, c, 2), int))
    for i, predicted, label in pairs(state):
      if self.kind == IOU:
        pixels = boundary.iou_counts(predicted, label, c, share=self.width, void=c)
        rows['pixels'][i] += pixels
        values = boundary.iou(pixels)
      else:
        values = self._f(predicted, label)
      rows['maps'][i] += ~np.isnan(values)
      rows['sum'][i] += np.nan_to_num(values)
    return rows, {}

  def _f(self, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[C], nan for classes that neither map has where the label is known."""
    known = label != self.classes
    values = np.full(self.classes, np.nan)
    for c in np.union1d(predicted[known], label[known]):
      masks = predicted == c, label == c
      values[c] = boundary.boundary_f(*masks, tolerance=self.width, valid=known)
    return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfBoundaries(OfLabels):
  """by_image: boundary IoU as a mean over images, and not pooled."""

  boundaries: Boundaries
  by_image: bool = False

  @property
  def source(self) -> Source:
    return self.boundaries

  @property
  def about(self):
    b, about = self.boundaries, ABOUT[self.boundaries.kind]
    size = f'{b.width:g} px' if b.width >= 1 else f'{100 * b.width:g} % of the diagonal'
    more = [] if b.width == WIDTH[b.kind] else [size]
    more += ['by image'] if self.by_image else []
    text = (
      about.text.replace('pooled over images', 'of each image') if self.by_image else about.text
    )
    what = 'Width of a strip' if b.kind == IOU else 'Close is within'
    title = ', '.join([about.title, *more])
    return dataclasses.replace(about, title=title, text=f'{text} {what}: {size}.')

  @property
  def convention(self):
    b = self.boundaries
    how = ['pooled' if b.kind == IOU and not self.by_image else 'mean of images']
    return f'{b.kind}[width={b.width:g}, {how[0]}, void=cut, each reader a label]'

  def compute(self, total):
    pooled = self.boundaries.kind == IOU and not self.by_image
    values = boundary.iou(total['pixels']) if pooled else ratio(total['sum'], total['maps'])
    return known_mean(np.delete(values, [*self.absent]))


@dataclasses.dataclass(frozen=True)
class Bands(Source):
  """Bins of the confidence of the likeliest class, by distance to a border [L, K]."""

  bins: int
  classes: int
  ignore: int | None

  @property
  def source_name(self):
    return f'bands/{self.bins}'

  def state(self, outputs, batch):
    conf = jnp.max(outputs.mean, -1)
    steps = jnp.round(conf * STEPS).astype(jnp.uint16)
    k = calibration.bins_of(conf, self.bins).astype(jnp.uint16)
    return maps(outputs, batch, self.ignore) | {'conf': steps, 'bin': k}

  def kept(self, state):
    shape = len(state['predicted']), len(EDGES) + 1, self.bins
    rows = {k: np.zeros(shape) for k in calibration.BinSums._fields}
    for i, predicted, label in pairs(state):
      far = border_calibration.distance(label, void=self.classes)
      seen = ~np.isnan(far)
      conf, right = state['conf'][i][seen] / STEPS, (predicted == label)[seen]
      sums = border_calibration.band_bins(
        far[seen], state['bin'][i][seen].astype(int), conf, right, num_bins=self.bins
      )
      for key, value in sums._asdict().items():
        rows[key][i] += value
    return rows, {}

  def total(self, rows, whole):
    return calibration.BinSums(**rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearBorders(OfLabels):
  """ECE of distances in (first, last], two of ENDS."""

  bands: Bands
  first: float = 0
  last: float = 2

  @property
  def source(self) -> Source:
    return self.bands

  @property
  def about(self):
    about = ABOUT[NEAR]
    return dataclasses.replace(about, title=f'ECE {band_name(self.first, self.last)} from borders')

  @property
  def convention(self):
    band = f'{self.first:g} to {self.last:g} px'
    return f'{NEAR}[{band}, {self.bands.bins} bins, void=cut, each reader a label]'

  def left_out(self, traits):
    return super().left_out(traits) or ('' if traits.confidence else UNSURE)

  def compute(self, total):
    chosen = slice(ENDS.index(self.first), ENDS.index(self.last))
    return calibration.ece(calibration.BinSums(*(x[chosen].sum(0) for x in total)))

  def bound(self, total):
    return 0.5 / STEPS


def band_name(first: float, last: float) -> str:
  """'0 to 2 px'"""
  return f'beyond {first:g} px' if last == math.inf else f'{first:g} to {last:g} px'
