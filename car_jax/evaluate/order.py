"""Which subject is better, and how sure is the order? Subjects see the same draws of images.

What is resampled are images, or whole groups of them: another training, from another seed, may
order models otherwise. Runs of several seeds say how much; see `over_seeds`. Letters: S subjects,
R resamples.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from car_jax.evaluate.cell import Cell
from car_jax.metrics.base import Metric
from car_jax.report.table import joined, number

SEEDS = (
  'Intervals and orders are of other images of this kind, not of another training: the noise '
  'between seeds comes on top.'
)

SIGNS = {'high': -1.0, 'low': 1.0}  # by which a low number is the better
SHOWN = 5  # subjects that a sentence names


@dataclasses.dataclass(frozen=True)
class Ranking:
  """order: subjects, the best first. best: in which share of the resamples each is the best.
  places: where each stands in 95 % of them, from 1. held: share in which the whole order holds.
  equal: of each of `order` but the first, whether its score is that of the one before in all of
  them. again: how alike two resamples order them, by the mean of Kendall's tau; nan where nothing
  told, as in a study.json of before."""

  order: tuple[str, ...]
  best: dict[str, float]
  places: dict[str, tuple[float, float]]
  held: float
  equal: tuple[bool, ...]
  again: float = math.nan


def ranking(
  cells: Mapping[str, Cell],
  metric: Metric,
  *,
  resamples: int,
  seed: int | Sequence[int] = 0,
  part: np.ndarray | None = None,
) -> Ranking | None:
  """Of the subjects that have the score, on the same images; None of fewer than two of them.

  None also for a score of which neither end is good, and where images are too few to be drawn
  again. part: indices of the images that count.
  """
  sign = SIGNS.get(metric.about.better)
  scored = {s: c for s, c in cells.items() if not np.isnan(c.value(metric))}
  if sign is None or len(scored) < 2:
    return None
  how: dict[str, Any] = dict(resamples=resamples, seed=seed, part=part)
  draws = np.stack([c.draws([metric], **how)[metric.name] for c in scored.values()], -1)  # [R, S]
  draws = draws[~np.isnan(draws).any(-1)]
  if len(draws) < 2:
    return None
  names = [*scored]
  values = sign * np.array([c.value(metric) for c in scored.values()])
  places = stats.rankdata(sign * draws, axis=-1)
  low, high = np.percentile(places, [2.5, 97.5], axis=0, method='inverted_cdf')
  order = np.argsort(values, kind='stable')
  steps = np.diff(sign * draws[:, order], axis=-1)
  first = (sign * draws == np.min(sign * draws, -1, keepdims=True)).astype(float)
  best = (first / first.sum(-1, keepdims=True)).mean(0)  # a tie is shared
  return Ranking(
    order=tuple(names[k] for k in order),
    best=dict(zip(names, best.tolist(), strict=True)),
    places={n: (float(a), float(b)) for n, a, b in zip(names, low, high, strict=True)},
    held=float((steps >= 0).all(-1).mean()),
    equal=tuple((steps == 0).all(0).tolist()),
    again=_mean(kendall(draws[1:], draws[:-1])),
  )


def _mean(values: np.ndarray) -> float:
  known = values[~np.isnan(values)]
  return float(known.mean()) if len(known) else np.nan


def kendall(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Kendall's tau-b between the orders of subjects by scores x, y [.., S] -> [..].

  1 is the same order, -1 the reverse; nan where one has all subjects equal.
  """
  a, b = np.triu_indices(x.shape[-1], 1)
  x, y = (np.sign(v[..., a] - v[..., b]) for v in (x, y))
  with np.errstate(invalid='ignore'):
    return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def agreement(cells: Mapping[str, Cell], metric: Metric, other: Metric) -> float:
  """Kendall's tau between the orders, best first, by two scores of the subjects that have both."""
  signs = [SIGNS.get(m.about.better, np.nan) for m in (metric, other)]
  values = np.array([[c.value(metric), c.value(other)] for c in cells.values()]) * signs
  x, y = values[~np.isnan(values).any(-1)].T.reshape(2, -1)
  return float(kendall(x, y))


def sentence(name: str, r: Ranking) -> str:
  """How sure the order by a score is. Subjects that are equal in every resample are one place."""
  share = lambda x: f'{100 * x:.0f} %'
  places: list[list[str]] = []
  for subject, equal in zip(r.order, (False, *r.equal), strict=True):
    places = [*places[:-1], [*places[-1], subject]] if equal else [*places, [subject]]
  first, best = joined(places[0]), sum(r.best[s] for s in places[0])
  if len(places) == 1:
    return f'By {name} {first} are equal in all of the resampled sets of images.'
  is_ = 'are equal, and' if places[0][1:] else 'is'
  line = f'By {name} {first} {is_} the best in {share(best)} of the resampled sets of images'
  if len(r.order) == 2:
    return f'{line}, {r.order[1]} in {share(r.best[r.order[1]])}.'
  shown = [' = '.join(p) for p in places]
  shown = [*shown[:SHOWN], *(['..'] if shown[SHOWN:] else [])]
  return f'{line}; the whole order ({", ".join(shown)}) holds in {share(r.held)}.'


def agreeing(name: str, r: Ranking, taus: Mapping[str, float]) -> str:
  """How alike the orders by other scores are, and by other images. taus: score -> Kendall's tau."""
  ends = dict.fromkeys((min(taus, key=taus.__getitem__), max(taus, key=taus.__getitem__)))
  shown = ' to '.join(f'{number(taus[score], 2)} ({score})' for score in ends)
  return (
    f"Kendall's tau of the order by {name} with that by other scores: {shown}; of two orders by "
    f'{name} on resampled sets of images: {number(r.again, 2)}.'
  )


@dataclasses.dataclass(frozen=True)
class OverSeeds:
  """A score of several trainings of one model; deviation: standard deviation over them."""

  name: str
  values: tuple[float, ...]

  @property
  def mean(self) -> float:
    return float(np.mean(self.values))

  @property
  def deviation(self) -> float:
    return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float('nan')


def over_seeds(
  cells: Mapping[str, Cell], seeds: Mapping[str, Sequence[str]], metric: Metric
) -> list[OverSeeds]:
  """seeds: model -> its subjects, one for each training. Those without the score are left out."""
  out = []
  for name, subjects in seeds.items():
    values = [cells[s].value(metric) for s in subjects if s in cells]
    if known := tuple(v for v in values if not np.isnan(v)):
      out.append(OverSeeds(name, known))
  return out


def between_seeds(
  cells: Mapping[str, Cell], seeds: Mapping[str, Sequence[str]], metric: Metric
) -> float:
  """How alike two trainings of every model order the models: the mean of Kendall's tau.

  Of the models with as many trainings as that with the most, which has several; nan for fewer than
  two of them, or where a training has no such score.
  """
  most = max(map(len, seeds.values()), default=0)
  runs = [s for s in seeds.values() if len(s) == most]
  if len(runs) < 2 or most < 2 or metric.about.better not in SIGNS:
    return np.nan
  values = np.array([[cells[s].value(metric) for s in of] for of in runs]).T  # [seeds, models]
  pairs = np.array([kendall(a, b) for a, b in itertools.combinations(values, 2)])
  return float(pairs.mean()) if not np.isnan(values).any() else np.nan
