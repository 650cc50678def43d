"""From predicted batches to counts, through any number of calibrators at once.

Letters: B images, H x W pixels, N of them looked at, C classes, S pixels sampled of each image.
"""

import dataclasses
import functools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.calibrate.base import Sample
from car_jax.errors import UserError
from car_jax.metrics import onepass
from car_jax.metrics.onepass import EXTRA, SCORES, Counts
from car_jax.reliability.image_counts import ImageCounts, Pooled, census_of
from car_jax.reliability.interpret import CLASSES_ONLY
from car_jax.reliability.segmenters import Predicted

NET_SCORES = ('max_logit', 'energy')  # without meaning where logits are logarithms of probabilities


@dataclasses.dataclass(frozen=True)
class How:
  """sampled: so many random pixels of each image, 0 for all. exact: keep every score, and sort.
  classwise: also each class's probability. seed: of the random pixels."""

  sampled: int = 0
  exact: bool = False
  classwise: bool = False
  seed: int = 0


def names_of(arrays: Mapping[str, Any], logit_scores: bool) -> tuple[str, ...]:
  """The scores that a batch allows, in the order of Counts.scores; '' for one without meaning."""
  if CLASSES_ONLY in arrays:
    return ('',) * len(SCORES)
  kept = tuple(s if logit_scores or s not in NET_SCORES else '' for s in SCORES)
  return kept + ((EXTRA,) if 'disagreement' in arrays else ())


def image_counts(
  batches: Iterable[Predicted],
  calibrators: Mapping[str, Any],
  how: How,
  *,
  progress: Any = None,
) -> dict[str, ImageCounts]:
  """Counts for each calibrator (None: the logits as they are), from one pass over the batches.

  `progress(k)` is called after each batch of k images. Raises UserError for a set without images,
  and for images of which some have scores that others lack.
  """
  out: dict[str, ImageCounts] = {}
  for batch in batches:
    names = names_of(batch.arrays, batch.logit_scores)
    if len(calibrators) > 1:
      _check_confident(batch)
    if out and (first := next(iter(out.values())).names) != names:
      raise UserError(
        f'{batch.ids[0]} allows the scores {_listed(names)}, images before it '
        f'{_listed(first)}\n  score logits, probabilities and samples one by one'
      )
    arrays = batch.arrays | {'keep': batch.keep}
    if how.sampled:
      shape = batch.arrays['labels'].shape
      arrays['pixels'] = drawn_pixels(batch.ids, shape[1] * shape[2], how)
    counted = _counted(dict(calibrators), arrays, classwise=how.classwise, exact=how.exact)
    for name, (counts, values) in batch.fetch(counted).items():
      out.setdefault(name, ImageCounts(names)).add(counts, batch.ids, batch.groups, batch.keep)
      if how.exact:
        out[name].add_values(*values)
    if progress is not None:
      progress(int(batch.keep.sum()))
  if not out:
    raise UserError('nothing to score: the set has no image')
  if (seen := census_of(next(iter(out.values())))).ignored == seen.pixels:
    raise UserError(
      'nothing to score: every pixel of the set has the ignored label\n  choose another split, or '
      'look at its labels'
    )
  return out


def _listed(names: Iterable[str]) -> str:
  return ', '.join(filter(None, names)) or 'of no confidence'


def _check_confident(batch: Predicted) -> None:
  if CLASSES_ONLY in batch.arrays:
    raise UserError(
      f'{batch.ids[0]} is a map of classes, without a confidence that could be calibrated\n'
      '  leave the calibrators out, or give logits or probabilities'
    )


def drawn_pixels(ids: Iterable[str], pixels: int, how: How) -> np.ndarray:
  """[B, S] different pixels of each image, a function of its id and the seed alone."""
  size = min(how.sampled, pixels)
  keyed = lambda name: np.random.default_rng([how.seed, zlib.crc32(str(name).encode())])
  return np.stack([keyed(i).choice(pixels, size, replace=False) for i in ids]).astype(np.int32)


@functools.partial(jax.jit, static_argnames=('classwise', 'exact'))
def _counted(calibrators, arrays, *, classwise, exact) -> dict[str, tuple[Counts, Any]]:
  out = {}
  for name, calibrator in calibrators.items():
    logits = calibrated(calibrator, arrays)
    args = _flat(logits, arrays)
    values = onepass.values(*args) if exact else None
    out[name] = onepass.counts(*args, classwise=classwise), values
  return out


def calibrated(calibrator: Any, arrays: Mapping[str, jax.Array]) -> jax.Array:
  """logits [B, H, W, C] through a calibrator; one that needs the image needs it at their size."""
  logits = arrays['logits']
  if calibrator is None:
    return logits
  image = arrays.get('image')
  if image is not None and image.shape[1:3] != logits.shape[1:3]:
    image = jax.image.resize(image, (*logits.shape[:3], 3), 'bilinear', antialias=False)
  return calibrator.apply(logits, image=image, features=arrays.get('features'))


def _flat(logits: jax.Array, arrays: Mapping[str, jax.Array]) -> tuple:
  """logits, labels, counted, unknown, disagreement with one axis of pixels [B, N]."""
  b, h, w, c = logits.shape
  rows = lambda x: None if x is None else x.reshape(b, h * w)
  maps: list[Any] = [rows(arrays.get(k)) for k in ('labels', 'unknown', 'disagreement')]
  logits = logits.reshape(b, h * w, c)
  if 'pixels' in arrays:
    at = arrays['pixels']
    maps = [x if x is None else jnp.take_along_axis(x, at, 1) for x in maps]
    logits = jnp.take_along_axis(logits, at[..., None], 1)
  labels, unknown, disagreement = maps
  counted = jnp.broadcast_to(arrays['keep'][:, None], labels.shape)
  return logits, labels, counted, unknown, disagreement


def sample(batches: Iterable[Predicted], how: How, *, progress: Any = None) -> Sample:
  """`how.sampled` random pixels of each image, to calibrate on: the published way of fitting.

  Void pixels among them stay, with the label -1. Images smaller than that give all their pixels.
  """
  logits, labels, features = [], [], []
  for batch in batches:
    _check_confident(batch)
    a, keep = batch.arrays, np.asarray(batch.keep)
    b, h, w, c = a['logits'].shape
    size = min(how.sampled, h * w) if how.sampled else h * w
    at = drawn_pixels(batch.ids, h * w, dataclasses.replace(how, sampled=size))
    part = jnp.take_along_axis(a['logits'].reshape(b, h * w, c), at[..., None], 1)
    truth = jnp.take_along_axis(a['labels'].reshape(b, h * w), at, 1)
    truth = jnp.where((truth >= 0) & (truth < c), truth, -1)
    more = {'features': a['features']} if 'features' in a else {}
    part, truth, more = batch.fetch((part, truth, more))
    logits.append(np.asarray(part, np.float32)[keep])
    labels.append(np.asarray(truth, np.int32)[keep])
    if more:
      features.append(np.asarray(more['features'], np.float32)[keep])
    if progress is not None:
      progress(int(keep.sum()))
  if not logits:
    raise UserError('nothing to calibrate on: the set has no image')
  width = max(x.shape[1] for x in logits)
  fill = lambda x, v: np.pad(
    x, ((0, 0), (0, width - x.shape[1]), *((0, 0),) * (x.ndim - 2)), constant_values=v
  )
  return Sample(
    np.concatenate([fill(x, 0) for x in logits]),
    np.concatenate([fill(x, -1) for x in labels]),
    np.concatenate(features) if features else None,
  )


class Exact(Pooled):
  """Pooled counts with one group for every distinct score: no bins, so no error of bins."""

  def __init__(self, pooled: Pooled, values: np.ndarray, outcomes: np.ndarray, conf: np.ndarray):
    """values [S, N] coordinates, outcomes [N], conf [N] the largest probabilities."""
    super().__init__(pooled.names, dict(pooled.counts), pooled.absent)
    seen = outcomes < onepass.VOID
    self._outcomes = outcomes[seen]
    self._groups = [np.unique(v[seen], return_inverse=True)[1].reshape(-1) for v in values]
    scored = self._outcomes < onepass.UNKNOWN
    group = self._groups[0]
    size = group.max(initial=-1) + 1
    self.counts['conf'] = np.bincount(group[scored], conf[seen][scored].astype(np.float64), size)

  def outcomes(self, score: str, *kinds: int) -> np.ndarray:
    group = self._groups[self.names.index(score)]
    return np.bincount(group[np.isin(self._outcomes, kinds)], minlength=group.max(initial=-1) + 1)
