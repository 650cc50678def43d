"""Sums that scores of single pixels follow from: `onepass` on the device, added up on the host.

Letters as in metrics/onepass.py, and I images, M readers. Sums over images are int64 or float64.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.metrics import calibration, confidence_groups, onepass, ranking
from car_jax.metrics.base import Source
from car_jax.metrics.onepass import (
  BINS,
  COARSE,
  EXTRA,
  RIGHT,
  SCORES,
  UNKNOWN,
  WRONG,
)
from car_jax.typing import Array

ORDER = (*SCORES, EXTRA)
SORTED = ('values', 'outcome', 'confidence')
FINE = ('scores', 'conf', 'classwise', 'classwise_conf')  # of all images together, at K bins
OBJECT_SCORES = ('entropy', 'max_prob', 'max_logit')  # GenVal's three, per image
OBJECT_NUMBERS = 14


@dataclasses.dataclass
class Totals:
  """Counts added over images.

  confusion [C, C]; scores [S, 3, K] outcomes by bin; conf [K] summed confidence by bin of max_prob;
  ece [2, E, 2] and ece_conf [2, E] of max_prob and of 1 - H / log C; losses [2]; pixels; classwise
  [C, 2, K] and classwise_conf [C, K] or None; objects [O] and with_objects [O], see `objects_of`.
  K is BINS, or COARSE for some of the images.
  """

  confusion: np.ndarray
  scores: np.ndarray
  conf: np.ndarray
  ece: np.ndarray
  ece_conf: np.ndarray
  losses: np.ndarray
  image: np.ndarray
  pixels: np.ndarray
  objects: np.ndarray
  with_objects: np.ndarray
  classwise: np.ndarray | None = None
  classwise_conf: np.ndarray | None = None

  def outcomes(self, score: str, *kinds: int) -> np.ndarray:
    """Pixels of these outcomes by bin of the score [K], ascending certainty."""
    return self.scores[ORDER.index(score)][list(kinds)].sum(0)

  def errors(self, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Wrong and right pixels [K] in the order of rising certainty."""
    return self.outcomes(score, WRONG), self.outcomes(score, RIGHT)

  def unknown(self, score: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of unknown objects and all others [K], in the order of falling certainty."""
    return self.outcomes(score, UNKNOWN)[::-1], self.outcomes(score, RIGHT, WRONG)[::-1]

  def tied(self) -> confidence_groups.Tied:
    """Top-label calibration by bin of max_prob, ascending."""
    wrong, right = self.errors('max_prob')
    return confidence_groups.Tied(right + wrong, self.conf, right)

  def bins(self, which: int = 0) -> calibration.BinSums:
    """Bins [E] of an ECE by max_prob (0) or by 1 - H / log C (1)."""
    pixels, right = np.moveaxis(self.ece[which], -1, 0)
    return calibration.BinSums(pixels, self.ece_conf[which], right)


def maps_of(outputs: Any, batch: Any) -> tuple[Any, Any, Any, Any, Any]:
  """logits [B, N, C]; labels [M, B, N], whether they count [M, B, N]; unknown and disagreement
  [B, N] or None. N are all pixels, or those that batch['pixels'] [B, S] names."""
  logits = outputs.logits
  b, h, w, c = logits.shape
  flat = lambda x: None if x is None else x.reshape(*x.shape[:-2], h * w)
  labels = jnp.asarray(batch['labels'], jnp.int32)
  labels = jnp.moveaxis(labels.reshape(b, -1, h * w), 1, 0)
  unknown, extra = flat(batch.get('unknown')), flat(outputs.disagreement)
  logits = logits.reshape(b, h * w, c)
  if (at := batch.get('pixels')) is not None:
    take = lambda x: None if x is None else jnp.take_along_axis(x, at, -1)
    labels = jnp.take_along_axis(labels, at[None], -1)
    logits = jnp.take_along_axis(logits, at[..., None], 1)
    unknown, extra = take(unknown), take(extra)
  weight = jnp.moveaxis(batch['label_weight'], 1, 0)[..., None] * batch['valid'][:, None]
  return logits, labels, jnp.broadcast_to(weight > 0, labels.shape), unknown, extra


def parts_of(outputs: Any, at: Any = None) -> onepass.Parts:
  """[B, N] of all pixels, or those that `at` [B, S] names; made once for all scores."""

  def make() -> onepass.Parts:
    logits = outputs.logits.reshape(len(outputs.logits), -1, outputs.logits.shape[-1])
    return onepass.image_parts(
      logits if at is None else jnp.take_along_axis(logits, at[..., None], 1)
    )

  return outputs.once(('parts', at is None), make)


@dataclasses.dataclass(frozen=True)
class PixelCounts(Source):
  """Every pixel of every reader, or those that batch['pixels'] [B, S] names, by `onepass.counts`.

  A label outside the classes, `ignore` and batch['unknown'] are as there. Readers count alike,
  whatever their weight; one of weight 0 is padding. classwise: also each class's own probability.
  """

  classwise: bool = False
  ignore: int | None = None

  @property
  def source_name(self):
    return 'pixels'

  def state(self, outputs, batch):
    shared = parts_of(outputs, batch.get('pixels'))
    counts = self._counts(*maps_of(outputs, batch), shared)
    return {k: v for k, v in counts._asdict().items() if v is not None}

  def _counts(self, logits, labels, counted, unknown, extra, shared) -> onepass.Counts:
    """Of all readers: their blocks stand beside one another, all else is added."""
    kw: dict[str, Any] = dict(ignore=self.ignore, classwise=self.classwise, shared=shared)
    one = lambda truth: onepass.counts(logits, *truth, unknown, extra, **kw)
    if len(labels) == 1:
      return one((labels[0], counted[0]))
    each = jax.lax.map(one, (labels, counted))
    added = jax.tree.map(lambda x: jnp.sum(x, 0), each)
    beside = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
    blocks = ('conf', 'ece_conf', 'losses', 'image', 'classwise_conf')
    parts = {k: beside(v) for k in blocks if (v := getattr(each, k)) is not None}
    return added._replace(**parts)

  def kept(self, state):
    arrays = _joined(state)
    whole = {k: arrays[k].sum(0) for k in FINE if k in arrays}
    rows = zip(arrays['scores'], arrays['image'], arrays['pixels'], strict=True)
    objects = np.array([objects_of(*row) for row in rows]).reshape(-1, OBJECT_NUMBERS)
    arrays['with_objects'] = (~np.isnan(objects)).astype(np.int64)
    arrays['objects'] = np.nan_to_num(objects)
    arrays['scores'], arrays['conf'] = _coarse(arrays['scores']), _coarse(arrays['conf'])
    return {k: v for k, v in arrays.items() if not k.startswith('classwise')}, whole

  def total(self, rows, whole):
    return Totals(**(rows | whole))

  def broken(self, state):
    return ~np.isfinite(state['image']).all((1, 2))


def known(batch: Mapping[str, Array], classes: int, ignore: int | None) -> Array:
  """Which labels [B, M, H, W] are of a class; no label of a padding reader is."""
  labels = batch['labels']
  one = (labels >= 0) & (labels < classes) & (batch['label_weight'] > 0)[..., None, None]
  return one if ignore is None else one & (labels != ignore)


def _joined(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Of each image [B, ..]: blocks added, halves of fixed-point numbers joined."""
  arrays = dict(state)
  for key in ('conf', 'ece_conf', 'classwise_conf'):
    if key in arrays:
      arrays[key] = onepass.unfixed(arrays[key].sum(1))
  for key in ('losses', 'image'):
    arrays[key] = arrays[key].sum(1)
  return arrays


def _coarse(x: np.ndarray) -> np.ndarray:
  """[.., BINS] -> [.., COARSE]"""
  return x.reshape(*x.shape[:-1], COARSE, BINS // COARSE).sum(-1)


def objects_of(scores: np.ndarray, image: np.ndarray, pixels: int) -> list[float]:
  """GenVal's numbers of one image (arXiv 2312.09231), nan without an unknown object.

  Its mean entropy inside and that over the mean outside; then AUROC, FPR95, AUPR of the object and
  AUPR of the rest for each of OBJECT_SCORES.
  """
  inside = scores[0][UNKNOWN].sum()
  if not inside:
    return [np.nan] * OBJECT_NUMBERS
  mean = image[2] / inside
  outside = (image[1] - image[2]) / max(pixels - inside, 1)
  values = [mean, mean / outside if outside > 0 else np.nan]
  for score in OBJECT_SCORES:
    counts = scores[ORDER.index(score)]
    strange = counts[UNKNOWN][::-1], counts.sum(0)[::-1] - counts[UNKNOWN][::-1]
    values += [f(*strange) for f in (ranking.auroc, ranking.fpr_at_tpr, ranking.aupr)]
    values.append(ranking.aupr(strange[1][::-1], strange[0][::-1]))
  return values


@dataclasses.dataclass(frozen=True)
class SortedPixels(PixelCounts):
  """As PixelCounts, and every pixel's scores: values without the error of histograms.

  What is not kept of each image are the values themselves, which grow with the pixels.
  """

  def state(self, outputs, batch):
    logits, labels, counted, unknown, extra = maps_of(outputs, batch)
    if len(labels) > 1:
      raise ValueError('scores are sorted against one label only')
    every = super().state(outputs, batch)
    maps = labels[0], counted[0], unknown, extra
    sorted_ = onepass.values(logits, *maps, ignore=self.ignore)
    return every | dict(zip(SORTED, sorted_, strict=True))

  def kept(self, state):
    state = dict(state)
    values = np.moveaxis(state.pop('values'), 1, 0)
    outcome, confidence = (state.pop(k).reshape(-1) for k in ('outcome', 'confidence'))
    rows, whole = super().kept(state)
    values = values.reshape(len(values), -1).astype(np.float32)
    return rows, whole | dict(values=values, outcome=outcome, confidence=confidence)

  def added(self, one, other):
    flat = {k: np.concatenate([one[k], other[k]], -1) for k in SORTED if k in one}
    rest = [{k: v for k, v in x.items() if k not in SORTED} for x in (one, other)]
    return super().added(*rest) | flat

  def total(self, rows, whole):
    whole = dict(whole)
    flat = {k: whole.pop(k) for k in SORTED if k in whole}
    totals = super().total(rows, whole)
    return Sorted(totals, **flat) if flat else totals


class Sorted(Totals):
  """Totals with one group for every distinct score: no bins, so no error of bins."""

  def __init__(
    self, totals: Totals, values: np.ndarray, outcome: np.ndarray, confidence: np.ndarray
  ):
    """values [S, N] coordinates, outcome [N], confidence [N] the largest probabilities."""
    super().__init__(**vars(totals))
    there = outcome < onepass.VOID
    self._outcomes = outcome[there]
    self._groups = [np.unique(v[there], return_inverse=True)[1].reshape(-1) for v in values]
    scored = self._outcomes < UNKNOWN
    group = self._groups[0]
    size = group.max(initial=-1) + 1
    self.conf = np.bincount(group[scored], confidence[there][scored].astype(np.float64), size)

  def outcomes(self, score, *kinds):
    group = self._groups[ORDER.index(score)]
    chosen = np.isin(self._outcomes, kinds)
    return np.bincount(group[chosen], minlength=group.max(initial=-1) + 1)
