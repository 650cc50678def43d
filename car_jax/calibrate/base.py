"""What all calibrators share: the sample they are fitted to, the kinds there are, the record of a
fit.

Letters: I images, S pixels of each, B images of a batch, H x W pixels, C classes, D features.
"""

import contextlib
import dataclasses
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import lookup
from car_jax.errors import UserError, nearest
from car_jax.metrics import calibration
from car_jax.metrics.streaming import Streaming
from car_jax.typing import Array

NUM_BINS = 15
PIXELS = 1 << 15  # scored at a time

# kind -> its fit function and the options that the name stands for; any other number of clusters
# is 'clusters12' or 'clusters:12'
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
  'temperature': ('temperature:fit', {}),
  'ece_grid': ('temperature:fit', {'objective': 'ece'}),
  'per_class': ('temperature:fit_per_class', {}),
  'per_class_ece': ('temperature:fit_per_class', {'objective': 'ece'}),
  'clusters': ('clusters:fit_best', {}),
  'clusters8': ('clusters:fit', {'clusters': 8}),
  'clusters8_ece': ('clusters:fit', {'clusters': 8, 'objective': 'ece'}),
  'selective': ('selective:fit', {}),
}


NEEDED = {'features': 'features of the images', 'image': 'the images'}


class CalibrationWarning(UserWarning):
  """A fit that succeeded but should be looked at."""


class Calibrator(Protocol):
  """A frozen pytree of arrays. `apply` is pure; what a calibrator does not need may be None.

  One that needs more than logits says so in its class: NEEDS is a key of NEEDED.
  """

  @property
  def temperatures(self) -> Array | None:
    """What was fitted, of any shape; None where each pixel has its own."""

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    """logits [B, H, W, C] or [B, S, C], image [B, H, W, 3] in [-1, 1], features [B, D] -> logits
    of the same shape."""


def needs(calibrator: Any) -> str:
  """A key of NEEDED, or ''."""
  return getattr(calibrator, 'NEEDS', '')


@dataclasses.dataclass(frozen=True)
class Sample:
  """Pixels to calibrate on: logits [I, S, C] float32, labels [I, S] int32 (-1: does not count),
  features [I, D] or None. Raises UserError where the arrays do not belong together."""

  logits: np.ndarray
  labels: np.ndarray
  features: np.ndarray | None = None

  def __post_init__(self):
    shape = np.shape(self.logits)
    if len(shape) != 3 or np.shape(self.labels) != shape[:2]:
      raise UserError(
        f'logits {shape} and labels {np.shape(self.labels)} do not belong together\n'
        '  expected [images, pixels, classes] and [images, pixels]'
      )
    if self.features is not None and len(self.features) != len(self.logits):
      raise UserError(f'{len(self.features)} rows of features for {len(self.logits)} images')
    if self.labels.size and int(np.max(self.labels)) >= self.classes:
      raise UserError(
        f'labels hold {int(np.max(self.labels))}, but logits have {self.classes} classes\n'
        '  a pixel that does not count has the label -1'
      )

  @property
  def images(self) -> int:
    return len(self.logits)

  @property
  def classes(self) -> int:
    return np.shape(self.logits)[2]

  def take(self, images: np.ndarray) -> 'Sample':
    """The sample of some of the images, by their indices."""
    features = None if self.features is None else self.features[images]
    return Sample(self.logits[images], self.labels[images], features)


def joined(parts: Sequence[Sample]) -> Sample:
  """One sample of all their images; rows of fewer pixels are filled with some that do not count."""
  width = max(part.labels.shape[1] for part in parts)
  fill = lambda x, v: np.pad(
    x, ((0, 0), (0, width - x.shape[1]), *((0, 0),) * (x.ndim - 2)), constant_values=v
  )
  features = [part.features for part in parts if part.features is not None]
  return Sample(
    np.concatenate([fill(part.logits, 0) for part in parts]),
    np.concatenate([fill(part.labels, -1) for part in parts]),
    np.concatenate(features) if features else None,
  )


@dataclasses.dataclass(frozen=True)
class Fit:
  """A calibrator and where it comes from: kind, seed, temperatures, number of images, pixels and
  classes, NLL and ECE of the sample before and after, warnings. `about` is made of JSON's types."""

  calibrator: Any
  about: dict[str, Any]

  @property
  def change(self) -> str:
    """What it does to its sample, in words; of a calibrator that was fitted to one."""
    pair = lambda key: f'{self.about[f"{key}_before"]:.4f} -> {self.about[f"{key}_after"]:.4f}'
    return f'NLL {pair("nll")}, ECE {pair("ece")}'


def find(kind: str) -> tuple[Callable[..., Any], dict[str, Any]]:
  """A kind's fit function and the options its name stands for. Raises UserError.

  `package.module:function` is a function of the user's from a Sample to a Calibrator.
  """
  if kind == 'lts':
    raise UserError(
      "'lts' is trained, not fitted to a sample of pixels\n"
      '  train it: car-jax train --config configs/lts_street_scenes.py --workdir RUN\n'
      '  then: car-jax calibrate RUN --out FILE'
    )
  options: dict[str, Any]
  if match := re.fullmatch(r'clusters:?(\d+)(_ece)?', kind):
    where, options = 'clusters:fit', {'clusters': int(match[1])}
    options |= {'objective': 'ece'} if match[2] else {}
  elif kind in KINDS:
    where, options = KINDS[kind]
  elif ':' in kind:  # of the user's
    return lookup.own('calibrator', kind), {}
  else:
    raise UserError(f'no calibrator {kind!r}\n{nearest(kind, [*KINDS, "lts"])}')
  module, _, name = where.partition(':')
  return getattr(importlib.import_module(f'car_jax.calibrate.{module}'), name), dict(options)


def fit(kind: str, sample: Sample, *, seed: int = 0, **options: Any) -> Fit:
  """Fits a calibrator of a kind named as in KINDS; `options` are those of its fit function.

  Raises UserError for an unknown kind or option, and a sample that does not suffice.
  """
  function, given = find(kind)
  known = set(inspect.signature(function).parameters) - {'sample', 'seed'}
  if unknown := sorted(options.keys() - known):
    raise UserError(
      f'calibrator {kind!r} has no option {unknown[0]!r}\n{nearest(unknown[0], known)}'
    )
  if not np.any(sample.labels >= 0):
    raise UserError(f'none of the {sample.labels.size} pixels has a label; nothing to calibrate on')
  if 'seed' in inspect.signature(function).parameters:
    given['seed'] = seed
  with _collected() as messages:
    calibrator = function(sample, **given | options)
  before, after = scores(sample), scores(sample, calibrator)
  temperatures = calibrator.temperatures
  about = dict(
    kind=kind,
    seed=seed,
    temperatures=None if temperatures is None else np.asarray(temperatures, np.float64).tolist(),
    images=sample.images,
    pixels=int(np.sum(sample.labels >= 0)),
    classes=sample.classes,
    nll_before=before[0],
    nll_after=after[0],
    ece_before=before[1],
    ece_after=after[1],
    warnings=messages,
  )
  return Fit(calibrator, about)


@contextlib.contextmanager
def _collected() -> Iterator[list[str]]:
  """The messages of the CalibrationWarnings given inside; other warnings pass."""
  messages: list[str] = []
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', CalibrationWarning)
    yield messages
  for w in caught:
    if issubclass(w.category, CalibrationWarning):
      messages.append(str(w.message))
    else:
      warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)


def scores(sample: Sample, calibrator: Any = None) -> tuple[float, float]:
  """NLL in nats and 15-bin ECE of the sample's pixels, through a calibrator or as they are."""
  sums = Streaming(_score, lambda total: total)
  for rows, columns in _pieces(sample.labels.shape):
    logits, labels = sample.logits[rows, columns], sample.labels[rows, columns]
    features = None if sample.features is None else sample.features[rows]
    sums.update(calibrator, jnp.asarray(logits), jnp.asarray(labels), features)
  if sums.total is None or not sums.total[1]:
    return float('nan'), float('nan')
  losses, count, bins = sums.total
  return float(losses / count), calibration.ece(bins)


def _pieces(shape: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
  images, pixels = shape
  width = min(max(pixels, 1), PIXELS)
  height = max(1, PIXELS // width)
  for top in range(0, images, height):
    for left in range(0, pixels, width):
      yield slice(top, top + height), slice(left, left + width)


def _score(calibrator, logits, labels, features) -> tuple[Array, Array, calibration.BinSums]:
  """Of each image its summed losses, how many pixels count, and the bins of their confidence."""
  if calibrator is not None:
    logits = calibrator.apply(logits, features=features)
  logp = jax.nn.log_softmax(logits)
  counts = labels >= 0
  truth = jnp.maximum(labels, 0)
  losses = -jnp.take_along_axis(logp, truth[..., None], -1)[..., 0]
  conf = jnp.exp(jnp.max(logp, -1))
  hits = jnp.argmax(logits, -1) == labels
  bins = calibration.bin_sums(conf, hits, counts, NUM_BINS)
  return jnp.sum(jnp.where(counts, losses, 0), 1), jnp.sum(counts, 1), bins
