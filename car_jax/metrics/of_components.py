"""Unknown objects found as objects: scores of components by name, see metrics/components.py.

A pixel is predicted where its uncertainty is above a threshold: a given one, or of some levels of
uncertainty the one of the best F1 of single pixels over all images that are scored. The device
gives the level of each pixel; the host finds components at every level that occurs.

Letters: B images, H x W pixels, C classes, L levels from the most uncertain on, T limits of sIoU.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit

from car_jax.metrics import of_pixels, onepass, pixel_counts
from car_jax.metrics.base import About, OfLabels, Outputs, Source, Sums
from car_jax.metrics.components import THRESHOLDS, Truth
from car_jax.metrics.confusion_matrix import known_mean, ratio
from car_jax.metrics.onepass import EXTRA
from car_jax.metrics.texts import UNKNOWN_OBJECTS
from car_jax.typing import Array

PREDICTED, TRUE = 50, 10  # least sizes in pixels: of the obstacle track
VOID = 255
UNBOUNDED = ('max_logit', 'energy')  # whose uncertainty is minus the score; of others it is a share
# levels of uncertainty, falling; fewer than 256, so that one byte holds them and a last one of
# pixels that are never predicted
SHARES = expit(np.linspace(8, -8, 129))
LOGITS = np.sinh(np.linspace(1, -1, 255) * np.arcsinh(200))
PAPER = 'arXiv:2104.14812'
ABOUT = {
  'component_f1': About(
    'mean F1 of components',
    'high',
    'Unknown objects and predicted regions as wholes: an object is found where the regions that '
    'touch it cover it well (sIoU), a region is a false alarm where too little of it lies on '
    'objects. F1 of these counts over all images, averaged over limits from 0.25 to 0.75.',
    UNKNOWN_OBJECTS,
    True,
    PAPER,
  ),
  'component_siou': About(
    'sIoU of components',
    'high',
    'For each unknown object, its overlap with the predicted regions that touch it, without what '
    'they cover of other objects; the mean over all objects, of whatever size.',
    UNKNOWN_OBJECTS,
    True,
    PAPER,
  ),
  'component_ppv': About(
    'PPV of components',
    'high',
    'For each predicted region, the share of it that lies on unknown objects; the mean over all '
    'regions.',
    UNKNOWN_OBJECTS,
    True,
    PAPER,
  ),
  'component_threshold': About(
    'threshold of components',
    '',
    'Where components are cut: pixels of a higher uncertainty are predicted.',
    UNKNOWN_OBJECTS,
    False,
    PAPER,
  ),
}


def coordinates(outputs: Outputs, score: str) -> Array | None:
  """[B, H, W] float32 that rises with the certainty, see `onepass.coordinates`; None without."""
  if score == EXTRA:
    if outputs.disagreement is None:
      return None
    return onepass.calmness(outputs.disagreement, outputs.logits.shape[-1])
  place, logits = onepass.SCORES.index(score), outputs.logits
  row = lambda x: onepass.coordinates(onepass.parts(x), x.shape[-1])[place]
  size = max(1, onepass.BLOCK // logits.shape[2])  # rows at a time
  return jax.vmap(lambda image: jax.lax.map(row, image, batch_size=size))(logits)


def coordinate_of(uncertainty: Any, score: str, classes: int) -> np.ndarray:
  """The coordinate of an uncertainty: 1 - max_prob, 1 - margin, entropy or disagreement over log C,
  minus the logit or the energy (log mean exp)."""
  return -uncertainty if score in UNBOUNDED else _least(score, classes) - logit(uncertainty)


def _least(score: str, classes: int) -> float:
  """How far the coordinate is above the log-odds of the score."""
  return math.log(max(classes - 1, 1)) if score == 'max_prob' else 0.0


@dataclasses.dataclass(frozen=True)
class ComponentCounts(Source):
  """Components at every level, or of those above the uncertainty `at`. Least sizes are those of
  metrics/components.py; a pixel is void where no reader knows it and it is of no unknown object."""

  confidence: str
  at: float | None
  least_predicted: int
  least_true: int
  ignore: int | None

  @property
  def source_name(self):
    at = 'best' if self.at is None else self.at
    return f'components/{self.confidence}/{at}/{self.least_predicted}/{self.least_true}'

  @property
  def thresholds(self) -> np.ndarray:
    """Of uncertainty [L], falling."""
    if self.at is not None:
      return np.array([self.at])
    return LOGITS if self.confidence in UNBOUNDED else SHARES

  def state(self, outputs, batch):
    key = ('coordinates', self.confidence)
    x = outputs.once(key, lambda: coordinates(outputs, self.confidence))
    if x is None or 'unknown' not in batch:
      return None
    classes = outputs.logits.shape[-1]
    edges = coordinate_of(self.thresholds, self.confidence, classes)
    level = jnp.searchsorted(jnp.asarray(edges, jnp.float32), x, side='right')
    known = jnp.any(pixel_counts.known(batch, classes, self.ignore), 1)
    truth = jnp.where(batch['unknown'], 1, jnp.where(known, 0, VOID))
    return {'level': level.astype(jnp.uint8), 'truth': truth.astype(jnp.uint8)}

  def kept(self, state):
    maps = [*zip(state['level'], state['truth'], strict=True)]
    n, levels = len(maps), len(self.thresholds)
    shapes = dict(counts=(levels, len(THRESHOLDS), 3), predicted=(levels,), true=())
    rows: Sums = {k: np.zeros((n, *shape), np.int64) for k, shape in shapes.items()}
    rows |= {k: np.zeros((n, levels)) for k in ('siou', 'ppv')}
    rows['pixels'] = np.zeros((n, levels + 1, 2), np.int64)
    for i, (level, truth) in enumerate(maps):
      objects = Truth.of(truth, self.least_true)
      rows['true'][i] = len(objects.size)
      self._fill({k: v[i] for k, v in rows.items()}, level, truth, objects)
    return rows, {}

  def _fill(self, row: Sums, level: np.ndarray, labels: np.ndarray, objects: Truth) -> None:
    """The numbers of an image at each level; where it has no pixel, those of the level before."""
    for k, kind in enumerate((1, 0)):
      row['pixels'][:, k] = np.bincount(level[labels == kind], minlength=len(row['pixels']))
    found = None
    for at in range(len(row['counts'])):
      if found is None or row['pixels'][at].any():
        found = objects.against(level <= at, self.least_predicted)
      row['counts'][at], row['predicted'][at] = found.counts(), len(found.ppv)
      row['siou'][at], row['ppv'][at] = found.true_siou.sum(), found.ppv.sum()


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfComponents(OfLabels):
  """A score by `kind`, one of ABOUT; nan without a true component, and where the threshold is the
  best one without a pixel of an unknown object."""

  kind: str
  counts: ComponentCounts

  @property
  def source(self) -> Source:
    return self.counts

  @property
  def about(self):
    c, about = self.counts, ABOUT[self.kind]
    if c.confidence != 'max_prob':
      about = of_pixels.by(about, c.confidence)
    where = 'of the best F1 of single pixels on these images' if c.at is None else f'{c.at:g}'
    text = f'{about.text} Threshold of uncertainty: {where}.'
    sizes = (c.least_predicted, c.least_true)
    text += f' Regions have at least {sizes[0]:,}, objects {sizes[1]:,} pixels of the label.'
    more = [] if sizes == (PREDICTED, TRUE) else [f'from {sizes[0]:,} and {sizes[1]:,} px']
    more += [] if c.at is None else [f'above {c.at:g}']
    return dataclasses.replace(about, title=', '.join([about.title, *more]), text=text)

  @property
  def convention(self):
    c = self.counts
    at = 'best pixel F1' if c.at is None else f'{c.at:g}'
    sizes = f'seg={c.least_predicted}, ins={c.least_true}'
    return f'{self.kind}[{c.confidence} > {at}, {sizes}, void=cut]'

  def left_out(self, traits):
    return super().left_out(traits) or of_pixels.without(self.counts.confidence, traits)

  def compute(self, total):
    level = self._level(total)
    if level < 0 or not total['true']:
      return float('nan')
    if self.kind == 'component_threshold':
      return float(self.counts.thresholds[level])
    if self.kind == 'component_f1':
      tp, fn, fp = total['counts'][level].T
      return known_mean(ratio(2 * tp, 2 * tp + fn + fp))
    of = total['true'] if self.kind == 'component_siou' else total['predicted'][level]
    return float(ratio(total[self.kind.removeprefix('component_')][level], of))

  def bound(self, total):
    """Between two levels there may be a better threshold."""
    return float('nan') if self.counts.at is None else 0.0

  def _level(self, total) -> int:
    """-1 where there is no positive pixel to choose it by."""
    if self.counts.at is not None:
      return 0
    positives = total['pixels'][:, 0].sum()
    hits, alarms = np.cumsum(total['pixels'][:-1], 0).T
    return int(np.argmax(2 * hits / (hits + alarms + positives))) if positives else -1
