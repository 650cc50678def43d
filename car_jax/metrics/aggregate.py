"""One number for an image from its map of uncertainty: arXiv 2401.08501, 2406.03323, 2603.29941.

Letters: H x W pixels, C classes. A map u [H, W] is higher where the model is less sure, and so are
all numbers here unless their line says otherwise. `valid` leaves pixels out of every mean and sum;
predictions are there everywhere, so that borders and components are those of the whole prediction.
Computed in float64 on the host.

`aggregate(u, how)`; what is in brackets is an argument, and part of the name:
  mean, sum, max, min, std, quantile[q]
  patch[k]             largest mean of a k x k window inside the image, k at most the image's size
                       (arXiv 2401.08501 prints k^2 times it); of windows at least half valid
  above[t]             mean of the pixels >= t, 0 without any. Not monotone in u
  above_quantile[q]    mean of the pixels >= the image's own quantile; [fg]: q is the share of
                       predicted background
  volume[t]            share of pixels >= t
and with `prediction`, in which class 0 is the background:
  class_mean           mean over predicted classes of each one's mean; `class_means` has them
  border_mean          the same of the classes' border pixels
  components           how many predicted objects, of eight neighbours; says nothing of u
  boundary[w]          mean in the band of width w around borders; without any, of the image
  off_boundary[w]      mean outside of that band; without any such pixel, of the image
  foreground           mean where a class but 0 is predicted; without any, of the image
  inner[w], outer[w]   mean of foreground, of background, outside the band; the same
  distance[d]          mean weighted by the distance to borders, d at most; the same
  per_foreground       mean / predicted foreground pixels
and how u is spread, see car_jax/metrics/spatial.py:
  moran, geary, mass_ratio[edges], mass_ratio[entropy], mass_ratio[moran]
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from car_jax.errors import UserError, nearest
from car_jax.metrics import borders, spatial
from car_jax.metrics.confusion_matrix import known_mean


@dataclasses.dataclass(frozen=True)
class Map:
  """u, which pixels count, and the prediction, all [H, W]."""

  u: np.ndarray
  valid: np.ndarray
  prediction: np.ndarray | None = None

  @property
  def values(self) -> np.ndarray:
    """[N], of the pixels that count."""
    return self.u[self.valid]

  @property
  def predicted(self) -> np.ndarray:
    if self.prediction is None:
      raise ValueError('this aggregation needs prediction=')
    return self.prediction

  def mean(self, where: np.ndarray) -> float:
    """Over the pixels where, or over all where there is none; nan of an image without a pixel."""
    where = where & self.valid
    values = self.u[where] if where.any() else self.values
    return float(values.mean()) if values.size else float('nan')


def aggregate(
  u: np.ndarray,
  how: str,
  *,
  prediction: np.ndarray | None = None,
  valid: np.ndarray | None = None,
) -> float:
  """A map [H, W] -> one number, see the module's list; nan of an image without a pixel.

  Raises UserError for an unknown `how`.
  """
  name, _, argument = how.partition('[')
  if name not in KINDS or not re.fullmatch(KINDS[name][0], argument.removesuffix(']')):
    raise UserError(f'no aggregation {how!r}\n{nearest(how, names())}')
  u = np.asarray(u, np.float64)
  valid = np.ones(u.shape, bool) if valid is None else np.asarray(valid, bool)
  m = Map(u, valid, None if prediction is None else np.asarray(prediction))
  if not valid.any():
    return float('nan')
  return float(KINDS[name][1](m, argument.removesuffix(']')))


def names() -> list[str]:
  """Every aggregation with an example of its argument."""
  example = {NUMBER: '0.9', SHARE: '0.9', WHOLE: '10', EVEN: '4', QUANTILE: 'fg'}
  arguments = [(name, example.get(of, of).split('|')) for name, (of, _) in KINDS.items()]
  return [f'{name}[{x}]' if x else name for name, of in arguments for x in of]


def class_means(m: Map, classes: int, *, border: bool = False) -> np.ndarray:
  """Mean over the pixels of each predicted class [C], or over its border's; nan where none is."""
  of = lambda c: m.predicted == c
  masks = [borders.class_border(of(c)) if border else of(c) for c in range(classes)]
  return np.array([m.mean(x) if (x & m.valid).any() else np.nan for x in masks])


def window_sums(x: np.ndarray, k: int) -> np.ndarray:
  """Sums over the k x k windows inside the image: [H, W] -> [H - k + 1, W - k + 1]."""
  total = np.pad(np.cumsum(np.cumsum(x, 0), 1), ((1, 0), (1, 0)))
  return total[k:, k:] - total[:-k, k:] - total[k:, :-k] + total[:-k, :-k]


def background_threshold(maps: Any, samples: Any, *, bins: int | None = None) -> float:
  """The one threshold for `above[t]` of arXiv 2401.08501, from maps of validation.

  The quantile of all their pixels [N, H, W] at the share of background, class 0, in all samples
  [N, S, H, W]. bins: from a histogram from 0 to the largest value, which is at most the width of a
  bin too high and can be added up over batches.
  """
  u, share = np.asarray(maps, np.float64).reshape(-1), np.mean(np.asarray(samples) == 0)
  if bins is None:
    return float(np.quantile(u, share))
  counts, edges = np.histogram(u, bins, (0, max(u.max(initial=0), 1e-12)))
  rank = np.ceil(share * (u.size - 1))
  return float(edges[1 + np.searchsorted(np.cumsum(counts), rank, side='right').clip(0, bins - 1)])


def ncc(a: np.ndarray, b: np.ndarray) -> float:
  """Normalised cross-correlation of two maps as arXiv 2401.08501 has it: Pearson's times (n-1)/n.

  nan where either is constant.
  """
  a, b = (np.asarray(x, np.float64).reshape(-1) for x in (a, b))
  if a.size < 2 or np.all(a == a[0]) or np.all(b == b[0]):
    return float('nan')
  return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std(ddof=1) * b.std(ddof=1)))


def _patch(m: Map, k: str) -> float:
  size = min(int(k), *m.u.shape)
  pixels = window_sums(m.valid.astype(np.float64), size)
  sums = window_sums(np.where(m.valid, m.u, 0.0), size)
  enough = 2 * pixels >= size**2
  return float(np.max(sums[enough] / pixels[enough])) if enough.any() else float('nan')


def _above(m: Map, t: float) -> float:
  values = m.values[m.values >= t]
  return float(values.mean()) if values.size else 0.0


def _above_quantile(m: Map, q: str) -> float:
  share = 1 - np.mean(m.predicted[m.valid] != 0) if q == 'fg' else float(q)
  return _above(m, np.quantile(m.values, share))


def _classwise(border: bool) -> Callable[[Map, str], float]:
  classes = lambda m: int(m.predicted.max(initial=0)) + 1
  return lambda m, _: known_mean(class_means(m, classes(m), border=border))


def _components(m: Map, _: str) -> float:
  present = [c for c in np.unique(m.predicted) if c]
  return sum(ndimage.label(m.predicted == c, borders.EIGHT)[1] for c in present)


def _distance(m: Map, d: str) -> float:
  weight = np.minimum(np.sqrt(borders.squared_distance(borders.borders(m.predicted))), float(d))
  total = np.sum(weight[m.valid])
  return float(np.sum((weight * m.u)[m.valid]) / total) if total else m.mean(m.valid)


def _outside(where: Callable[[np.ndarray], np.ndarray]) -> Callable[[Map, str], float]:
  return lambda m, w: m.mean(where(m.predicted) & ~borders.band(m.predicted, int(w)))


NUMBER, WHOLE, EVEN = r'-?\d+\.?\d*(?:e-?\d+)?', r'[1-9]\d*', r'[1-9]?\d*[2468]|[1-9]\d*0'
SHARE = r'[01](?:\.0*)?|0?\.\d+'
QUANTILE = f'fg|{SHARE}'
# name -> what its argument looks like, and what it computes
KINDS: dict[str, tuple[str, Callable[[Map, str], float]]] = {
  'mean': ('', lambda m, _: m.values.mean()),
  'sum': ('', lambda m, _: m.values.sum()),
  'max': ('', lambda m, _: m.values.max()),
  'min': ('', lambda m, _: m.values.min()),
  'std': ('', lambda m, _: m.values.std()),
  'quantile': (SHARE, lambda m, q: np.quantile(m.values, float(q))),
  'patch': (WHOLE, _patch),
  'above': (NUMBER, lambda m, t: _above(m, float(t))),
  'above_quantile': (QUANTILE, _above_quantile),
  'volume': (NUMBER, lambda m, t: float(np.mean(m.values >= float(t)))),
  'class_mean': ('', _classwise(border=False)),
  'border_mean': ('', _classwise(border=True)),
  'components': ('', _components),
  'boundary': (EVEN, lambda m, w: m.mean(borders.band(m.predicted, int(w)))),
  'off_boundary': (EVEN, _outside(lambda p: p == p)),
  'foreground': ('', lambda m, _: m.mean(m.predicted != 0)),
  'inner': (EVEN, _outside(lambda p: p != 0)),
  'outer': (EVEN, _outside(lambda p: p == 0)),
  'distance': (NUMBER, _distance),
  'per_foreground': ('', lambda m, _: m.mean(m.valid) / max(1, np.sum(m.predicted != 0))),
  'moran': ('', lambda m, _: spatial.moran(m.u, m.valid)),
  'geary': ('', lambda m, _: spatial.geary(m.u, m.valid)),
  'mass_ratio': ('|'.join(spatial.LOCAL), lambda m, of: spatial.mass_ratio(m.u, of, m.valid)),
}
