"""The scores of an evaluation, per image and per subject, and the intervals that follow from it.

Letters: I images, S subjects, K bins, R resamples.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from car_jax.evaluate import census, score
from car_jax.evaluate.catalogue import Metric, Plan
from car_jax.evaluate.predict import Says
from car_jax.metrics import bootstrap, calibration, confusion
from car_jax.metrics.bootstrap import Interval


@dataclasses.dataclass
class Results:
  """Everything by subject, in the order of the report.

  scores[subject][name] holds, per image and in the order of `ids`, what score.score returns: [I]
  values, [I, ..] curves and pytrees of sums. batch [I] tells which batch an image came in.
  """

  plan: Plan
  info: Any
  ids: np.ndarray
  groups: np.ndarray | None  # what was drawn independently, such as patients
  batch: np.ndarray
  scores: dict[str, dict[str, Any]]
  notes: dict[str, str]  # subject -> what it is
  seconds: float
  labels: np.ndarray  # [I, C + 2], see score.census
  says: dict[str, Says]  # subject -> what its samples are
  resamples: int = 1000
  _intervals: dict[tuple[str, str], Interval] = dataclasses.field(default_factory=dict)

  @property
  def subjects(self) -> list[str]:
    return [*self.scores]

  @property
  def units(self) -> tuple[int, str]:
    """How many independent units the intervals resample, and what they are."""
    if self.groups is None:
      return len(self.ids), 'images'
    return len(np.unique(self.groups)), 'patients'

  def values(self, subject: str, metric: Metric) -> np.ndarray | None:
    """[I] float64; None for a pooled metric, or where the subject has no such score."""
    return None if metric.pooled else self.scores[subject].get(metric.name)

  def interval(self, subject: str, metric: Metric) -> Interval:
    """The score over all images with its 95 % bootstrap interval; nan where there is none."""
    key = subject, metric.name
    if key not in self._intervals:
      self._intervals[key] = self._interval(*key, metric)
    return self._intervals[key]

  def _interval(self, subject: str, name: str, metric: Metric) -> Interval:
    value = self.scores[subject].get(name)
    if value is None:
      return Interval(np.nan, np.nan, np.nan, 0, len(self.ids))
    if metric.pooled:
      return self._pooled(value, metric)
    return bootstrap.interval(value, groups=self.groups, resamples=self.resamples)

  def _pooled(self, value: Any, metric: Metric) -> Interval:
    """Of the images with a pixel that counts; the others are skipped, as nan is elsewhere."""
    seen, groups = self.scorable, self.groups
    kept = jax.tree.map(lambda x: x[seen], value)
    finish = lambda totals: score.finish(metric, totals)
    groups = None if groups is None else groups[seen]
    interval = pooled_interval(kept, finish, groups=groups, resamples=self.resamples)
    return interval._replace(skipped=interval.skipped + int((~seen).sum()))

  @property
  def scorable(self) -> np.ndarray:
    """Which images [I] have a pixel that counts: one whose label some reader knows."""
    return self.labels[:, -2] > 0

  def remarks(self) -> list[str]:
    """What a reader must know before the numbers: odd labels, images and scores left out."""
    sums, classes = self.labels.sum(0), self.info.num_classes
    ignore = self.plan.ignore
    seen = census.Census(sums[:classes], sums[-1] - sums[-2], sums[-1])
    text = census.remark(seen, self.info.class_names, absent=(ignore,), ignore=ignore)
    lines = census.lines({self.info.name: text})
    if none := int((~self.scorable).sum()):
      lines.append(f'{none:,} of {len(self.ids):,} images have no pixel that counts: skipped.')
    for s in self.subjects:
      why = {m.name: m.left_out(self.says[s]) for m in self.plan.metrics}
      for reason in dict.fromkeys(filter(None, why.values())):
        names = ', '.join(name for name, text in why.items() if text == reason)
        lines.append(f'{s} has no {names}: {reason}.')
    return lines

  def difference(self, ours: str, theirs: str, metric: Metric) -> Interval | None:
    """ours - theirs on the same images; None for a pooled or missing metric."""
    a, b = self.values(ours, metric), self.values(theirs, metric)
    if a is None or b is None:
      return None
    return bootstrap.difference(a, b, groups=self.groups, resamples=self.resamples)

  def scalars(self, subject: str | None = None) -> dict[str, float]:
    """Metric name -> value over all images, for one subject (the first)."""
    subject = subject or self.subjects[0]
    return {m.name: self.value(subject, m) for m in self.plan.metrics}

  def value(self, subject: str, metric: Metric) -> float:
    """The score without its interval, which needs no resampling."""
    value = self.scores[subject].get(metric.name)
    if value is None:
      return float('nan')
    if metric.pooled:
      return score.finish(metric, total(value))
    return confusion.known_mean(value)

  def reliability(self, subject: str, source: str) -> calibration.Reliability | None:
    """The table behind a reliability diagram of 'mean' or 'own' probabilities."""
    sums = self.scores[subject].get(f'bins/{source}')
    return None if sums is None else calibration.reliability(total(sums))

  def means(self, subject: str, name: str) -> np.ndarray | None:
    """The mean over images of a part or a curve; nan where no image has it."""
    value = self.scores[subject].get(name)
    if value is None or not len(value):
      return None
    seen = ~np.isnan(value)
    return np.where(seen, value, 0).sum(0) / np.where(seen.any(0), seen.sum(0), np.nan)


def total(sums: Any) -> Any:
  """Per-image sums [I, ..] -> their total, exact in float64."""
  return jax.tree.map(lambda x: x.sum(0), sums)


def pooled_interval(
  sums: Any,
  finish: Callable[[Any], float],
  *,
  groups: np.ndarray | None = None,
  resamples: int = 1000,
) -> Interval:
  """Percentile bootstrap of finish(total of sums): images, or whole groups, drawn again.

  sums: a pytree of [I, ..]. A score such as ECE is no mean over images, so each resample adds its
  images' sums before it is finished. groups and resamples are as in `bootstrap.interval`. The ends
  are nan where fewer than two images, or groups, have a score of their own.
  """
  leaves, tree = jax.tree.flatten(sums)
  images = len(leaves[0])
  value = finish(total(sums)) if images else float('nan')
  if not images or np.isnan(value):
    return Interval(np.nan, np.nan, np.nan, 0, images)
  names = np.arange(images) if groups is None else np.asarray(groups)
  _, group = np.unique(names, return_inverse=True)
  flat = np.concatenate([np.asarray(x, np.float64).reshape(images, -1) for x in leaves], 1)
  by_group = np.zeros((group.max() + 1, flat.shape[1]))
  np.add.at(by_group, group, flat)
  cuts = np.cumsum([x[0].size for x in leaves])[:-1]

  def score_of(row: np.ndarray) -> float:
    parts = zip(np.split(row, cuts), leaves, strict=True)
    return finish(jax.tree.unflatten(tree, [part.reshape(x.shape[1:]) for part, x in parts]))

  scored = (row for row in by_group if not np.isnan(score_of(row)))
  if len([*itertools.islice(scored, 2)]) < 2:
    return Interval(value, np.nan, np.nan, images, 0)
  rng, units, resampled = np.random.default_rng(0), len(by_group), []
  for start in range(0, resamples, 100):  # blocks bound the memory
    times = rng.multinomial(units, np.full(units, 1 / units), min(100, resamples - start))
    resampled += [score_of(row) for row in times @ by_group]
  low, high = np.nanpercentile(resampled, [2.5, 97.5])
  return Interval(value, float(low), float(high), images, 0)
