"""Sets of classes at a threshold: how much of an image they miss, and how large they are.

The losses that conformal risk control (metrics/conformal.py) keeps below alpha, by LOSSES:

  miscoverage  the share of an image's labelled pixels whose label is not in their set
               {c: p_c >= t} with the likeliest class, or classes where several are equal (LAC,
               arXiv 1609.00451)
  balanced     the same by class of the label, then the mean over the classes that the image has
  fnr          the share of the foreground's pixels outside the mask {p >= t}, p its probability

`SetLosses` counts them at every edge of the grid of conformal_counts.py, from which a threshold is
chosen; `SetLoss` and `SetSize` are scores at a threshold that was chosen before.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.metrics import conformal_counts, onepass
from car_jax.metrics.base import UNSURE, About, PerImage, Source
from car_jax.metrics.pixel_counts import maps_of, parts_of
from car_jax.typing import Array

LOSSES = ('miscoverage', 'balanced', 'fnr')


@dataclasses.dataclass(frozen=True)
class SetKind:
  """loss: one of LOSSES. foreground: ids of the classes that fnr is of. ignore: a void label."""

  loss: str
  foreground: tuple[int, ...] = ()
  ignore: int | None = None


class Pixels(NamedTuple):
  """logits [B, N, C], the largest and the log of their summed exp [B, N], label [B, N] (0 where
  void) and whether it counts [B, N]."""

  logits: Array
  top: Array
  total: Array
  label: Array
  counted: Array

  @property
  def own(self) -> tuple[Array, Array]:
    """The label's probability, and whether no class is likelier [B, N]."""
    own = jnp.take_along_axis(self.logits, self.label[..., None], -1)[..., 0]
    return jnp.exp(own - self.total), own >= self.top

  def mask(self, foreground: tuple[int, ...]) -> tuple[Array, Array]:
    """The probability of the foreground, and whether the label is of it and counts [B, N]."""
    of = np.isin(np.arange(self.logits.shape[-1]), foreground)
    rest = 0 < np.sum(~of) < np.sum(of)  # fewer classes than the foreground has
    # one class after the other: XLA on a CPU takes much longer to sum along the last axis
    one = lambda p, c: (p + jnp.exp(self.logits[..., c] - self.total), None)
    p, _ = jax.lax.scan(one, jnp.zeros_like(self.total), np.flatnonzero(of != rest))
    p = jnp.maximum(1 - p, 0) if rest else p
    return p, self.counted & jnp.asarray(of)[self.label]


def pixels_of(outputs: Any, batch: Any, ignore: int | None) -> Pixels:
  """Raises ValueError for several readers: a set is of one label."""
  logits, labels, counted, unknown, _ = maps_of(outputs, batch)
  if len(labels) > 1:
    raise ValueError('sets of classes are scored against one label only')
  unknown, void = onepass.flags_of(logits, labels[0], unknown, ignore)
  seen = counted[0] & ~unknown & ~void
  p = parts_of(outputs, batch.get('pixels'))
  total = p.top + jnp.log1p(p.rest)
  return Pixels(jnp.asarray(logits, jnp.float32), p.top, total, jnp.where(seen, labels[0], 0), seen)


@dataclasses.dataclass(frozen=True)
class SetLosses(Source):
  """Of every image its loss at each edge of the grid, `sum` [I, K]; `images` [I] is 0 where it has
  none, since there is nothing to find in it."""

  kind: SetKind

  @property
  def source_name(self):
    return f'losses of {self.kind}'

  def state(self, outputs, batch):
    seen = pixels_of(outputs, batch, self.kind.ignore)
    finite = jnp.isfinite(seen.total).all(-1)
    if self.kind.loss == 'fnr':
      p, there = seen.mask(self.kind.foreground)
      return dict(finite=finite, counts=conformal_counts.histogram(p, there[:, None].astype(int)))
    by_class = self.kind.loss == 'balanced'
    classes = seen.logits.shape[-1] if by_class else 1
    label = seen.label if by_class else jnp.zeros_like(seen.label)
    count = lambda *x: conformal_counts.label_counts(*x, classes=classes)
    return dict(finite=finite, counts=jax.vmap(count)(*seen.own, label, seen.counted))

  def kept(self, state):
    counts = state['counts']
    if self.kind.loss == 'fnr':
      losses = conformal_counts.fnr(counts[:, 0])
    elif self.kind.loss == 'balanced':
      losses = conformal_counts.balanced(counts)
    else:
      losses = conformal_counts.miscoverage(counts)
    return _sums(losses), {}

  def broken(self, state):
    return state['finite'] == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfSets(PerImage):
  """A score of the sets at batch['thresholds'][guarantee], a number."""

  guarantee: str
  kind: SetKind

  def left_out(self, traits):
    return '' if traits.confidence else UNSURE

  def state(self, outputs, batch):
    key = 'pixels of sets', self.kind.ignore
    seen = outputs.once(key, lambda: pixels_of(outputs, batch, self.kind.ignore))
    part, whole = self.counts(seen, batch['thresholds'][self.guarantee])
    return dict(part=part, whole=whole)

  def counts(self, seen: Pixels, threshold: Any) -> tuple[Array, Array]:
    """Of each image int32 [B, R] whose mean ratio is its score; R is 1, or C for means of classes.

    Ratios are made on the host, so that a loss of exactly alpha is not above it by rounding.
    """
    raise NotImplementedError

  def kept(self, state):
    there = state['whole'] > 0
    shares = np.where(there, state['part'] / np.maximum(state['whole'], 1), 0.0).sum(-1)
    count = there.sum(-1)
    return _sums(np.where(count > 0, shares / np.maximum(count, 1), np.nan)), {}


class SetLoss(OfSets):
  """What sets miss; nan for an image with nothing to find."""

  @property
  def about(self):
    return About('missed by sets', 'low', 'What sets of classes miss of an image.', percent=True)

  def counts(self, seen, threshold):
    if self.kind.loss == 'fnr':
      p, there = seen.mask(self.kind.foreground)
      return _count(there & (p < threshold)), _count(there)
    p, right = seen.own
    missed = seen.counted & ~right & (p < threshold)
    if self.kind.loss == 'miscoverage':
      return _count(missed), _count(seen.counted)
    classes = seen.logits.shape[-1]
    add = lambda label, one: jnp.zeros(classes, jnp.int32).at[label].add(one.astype(jnp.int32))
    return jax.vmap(add)(seen.label, missed), jax.vmap(add)(seen.label, seen.counted)


class SetSize(OfSets):
  """Mean number of classes in the sets of labelled pixels; of fnr the share of them in the mask."""

  @property
  def about(self):
    return About('size of sets', 'low', 'Mean number of classes in the set of a pixel.')

  def counts(self, seen, threshold):
    if self.kind.loss == 'fnr':
      p, _ = seen.mask(self.kind.foreground)
      return _count(seen.counted & (p >= threshold)), _count(seen.counted)
    # compared as logits: an exp less for each class
    least = jnp.minimum(seen.total + jnp.log(threshold), seen.top)
    size = jnp.sum(seen.logits >= least[..., None], -1)
    return _count(jnp.where(seen.counted, size, 0)), _count(seen.counted)


def _count(x: Array) -> Array:
  return jnp.sum(x, 1, keepdims=True, dtype=jnp.int32)


def _sums(values: np.ndarray) -> dict[str, np.ndarray]:
  """Values of images [B] or [B, K], nan for those without any, as sums."""
  there = ~np.isnan(values)
  images = there.reshape(len(values), -1)[:, 0].astype(np.int64)
  return dict(sum=np.where(there, values, 0.0), images=images)
