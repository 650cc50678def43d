"""The scores of an evaluation, per image and per subject, and the intervals that follow from it.

Letters: I images, S subjects, K bins.
"""

import dataclasses
from typing import Any

import numpy as np

from car_jax.evaluate import cell, census, order
from car_jax.evaluate.cell import NAN, Cell, Estimate
from car_jax.evaluate.cost import Cost
from car_jax.evaluate.order import OverSeeds, Ranking
from car_jax.evaluate.plan import Plan
from car_jax.evaluate.predict import READERS
from car_jax.metrics import calibration
from car_jax.metrics.base import Metric
from car_jax.metrics.bootstrap import Interval
from car_jax.metrics.of_probabilities import Diagram
from car_jax.published import Score


@dataclasses.dataclass
class Results:
  """A cell for each subject, in the order of the report, all of the same images.

  notes: subject -> what it is. seeds: model -> its subjects, one for each of several trainings.
  published: what others have published of these scores. costs: of subjects that compute.
  """

  plan: Plan
  info: Any
  cells: dict[str, Cell]
  notes: dict[str, str]
  seconds: float
  resamples: int = 1000
  seeds: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  published: list[Score] = dataclasses.field(default_factory=list)
  costs: dict[str, Cost] = dataclasses.field(default_factory=dict)
  _estimates: dict[str, dict[str, Estimate]] = dataclasses.field(default_factory=dict)

  @property
  def subjects(self) -> list[str]:
    return [*self.cells]

  @property
  def first(self) -> Cell:
    return next(iter(self.cells.values()))

  @property
  def reference(self) -> Metric | None:
    """The score that models are ordered by."""
    return self.plan.main or next(iter(self.plan.metrics), None)

  @property
  def ids(self) -> np.ndarray:
    return np.array(self.first.ids)

  @property
  def groups(self) -> np.ndarray | None:
    """What was drawn independently [I], such as patients; None where each image is its own."""
    names = self.first.groups
    one_each = not any(names) or len({*names}) == len(names)
    return None if one_each else np.array(names)

  @property
  def batch(self) -> np.ndarray:
    """Which batch an image came in [I]."""
    return np.repeat(np.arange(len(self.first.sizes)), self.first.sizes)

  @property
  def whole(self) -> tuple[str, ...]:
    """Subjects whose samples are no draws."""
    return tuple(s for s, c in self.cells.items() if not c.traits.draws)

  @property
  def units(self) -> tuple[int, str]:
    """How many independent units the intervals resample, and what they are."""
    if self.groups is None:
      return len(self.ids), 'images'
    return len(np.unique(self.groups)), self.info.groups

  def values(self, subject: str, metric: Metric) -> np.ndarray | None:
    """[I] float64; None for a pooled metric, or where the subject has no such score."""
    return self.cells[subject].values(metric)

  def estimate(self, subject: str, metric: Metric) -> Estimate:
    """The score over all images with its 95 % bootstrap interval; nan where there is none."""
    if subject not in self._estimates:
      kw: dict[str, Any] = dict(resamples=self.resamples, counted=self.scorable)
      self._estimates[subject] = self.cells[subject].estimates(self.plan.metrics, **kw)
    return self._estimates[subject][metric.name]

  def interval(self, subject: str, metric: Metric) -> Interval:
    e = self.estimate(subject, metric)
    return Interval(e.value, e.low, e.high, e.images, e.skipped)

  @property
  def scorable(self) -> np.ndarray:
    """Which images [I] have a pixel that counts: one whose label some reader knows."""
    return self.first.rows['votes']['counted'] > 0

  def remarks(self) -> list[str]:
    """What a reader must know before the numbers: odd labels, images and scores left out."""
    votes, ignore = {k: v.sum(0) for k, v in self.first.rows['votes'].items()}, self.plan.ignore
    void = votes['pixels'] - votes['counted']
    seen = census.Census(votes['classes'], float(void), float(votes['pixels']))
    text = census.remark(seen, self.info.class_names, absent=(ignore,), ignore=ignore)
    lines = census.lines({self.info.name: text})
    if none := int((~self.scorable).sum()):
      lines.append(f'{none:,} of {len(self.ids):,} images have no pixel that counts: skipped.')
    for s, c in self.cells.items():
      why = {m.name: m.left_out(c.traits) for m in self.plan.metrics}
      for reason in dict.fromkeys(filter(None, why.values())):
        names = ', '.join(name for name, text in why.items() if text == reason)
        lines.append(f'{s} has no {names}: {reason}.')
      values = {m.name: self.values(s, m) for m in self.plan.metrics if not why[m.name]}
      if empty := [k for k, v in values.items() if v is not None and np.isnan(v).all()]:
        lines.append(f'{s} has no {", ".join(empty)}: no image has one, see what the score means.')
    return lines

  def difference(self, ours: str, theirs: str, metric: Metric) -> Interval | None:
    """ours - theirs on the same images; None where either has no such score."""
    one, other = self.cells[ours], self.cells[theirs]
    if not (one.has(metric) and other.has(metric)):
      return None
    e = cell.difference(one, other, metric, resamples=self.resamples, counted=self.scorable)
    return Interval(e.value, e.low, e.high, e.images, e.skipped)

  def ranking(self, metric: Metric) -> Ranking | None:
    """The order of the models by a score, without the readers' floor, and how sure it is."""
    models = {s: c for s, c in self.cells.items() if s != READERS}
    part = np.flatnonzero(self.scorable)
    return order.ranking(models, metric, resamples=self.resamples, part=part)

  def agreement(self, metric: Metric) -> float:
    """Kendall's tau of the models' order by a score with that by the reference."""
    models = {s: c for s, c in self.cells.items() if s != READERS}
    return order.agreement(models, metric, self.reference) if self.reference else NAN

  def over_seeds(self, metric: Metric) -> list[OverSeeds]:
    return order.over_seeds(self.cells, self.seeds, metric)

  def between_seeds(self, metric: Metric) -> float:
    return order.between_seeds(self.cells, self.seeds, metric)

  def comparison(self) -> list[str]:
    """How sure the order of models is, by the main score, and what that leaves out."""
    first = self.reference
    ranking = None if first is None else self.ranking(first)
    if first is None or ranking is None:
      return []
    lines = [order.sentence(first.name, ranking), *self._other_orders(first, ranking), order.SEEDS]
    return lines + [
      f'{one.name}: {first.name} {one.mean:.4g} ± {one.deviation:.2g}, mean and standard deviation '
      f'over {len(one.values)} trainings.'
      for one in self.over_seeds(first)
    ]

  def _other_orders(self, first: Metric, ranking: Ranking) -> list[str]:
    taus = {m.name: self.agreement(m) for m in self.plan.metrics if m is not first}
    taus = {name: tau for name, tau in taus.items() if not np.isnan(tau)}
    return [order.agreeing(first.name, ranking, taus)] if taus and len(ranking.order) > 2 else []

  def scalars(self, subject: str | None = None) -> dict[str, float]:
    """Metric name -> value over all images, for one subject (the first)."""
    subject = subject or self.subjects[0]
    return {m.name: self.value(subject, m) for m in self.plan.metrics}

  def value(self, subject: str, metric: Metric) -> float:
    """The score without its interval, which needs no resampling."""
    return self.cells[subject].value(metric)

  def rows(self, subject: str, source: str, key: str) -> np.ndarray | None:
    """What a figure needs of each image [I, ..]; None where the subject has it not."""
    return self.cells[subject].rows.get(source, {}).get(key)

  def reliability(self, subject: str, source: str) -> calibration.Reliability | None:
    """The table behind a reliability diagram of 'mean' or 'own' probabilities."""
    diagram = Diagram(source == 'own', top=False, ignore=None)
    known = diagram.source_name in self.cells[subject].rows
    return self.cells[subject].total(diagram) if known else None

  def means(self, subject: str, source: str, key: str) -> np.ndarray | None:
    """The mean over images of what a figure needs; nan where no image has it."""
    value = self.rows(subject, source, key)
    if value is None or not len(value):
      return None
    known = ~np.isnan(value)
    return np.where(known, value, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
