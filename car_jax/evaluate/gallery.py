"""Which images the report shows, and their predictions.

Letters: I images, N samples, M readers, H x W pixels, C classes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from car_jax import sharding
from car_jax.data.transforms import nearest_indices
from car_jax.evaluate.harness import Batches, Evaluator
from car_jax.evaluate.predict import Prediction, Subject
from car_jax.evaluate.results import Results


@dataclasses.dataclass
class Case:
  """An image with its labels and predictions: image [H, W, 3] in [-1, 1], readers [M, H, W] and
  their weight [M], the heaviest first.

  predictions: subject -> Prediction without its batch axis, as numpy.
  """

  index: int
  id: str
  image: np.ndarray
  readers: np.ndarray
  weight: np.ndarray
  predictions: dict[str, Prediction]


@dataclasses.dataclass
class Choice:
  """cases: (why, image index), worst to best; diverse: image indices, most disagreement first."""

  cases: list[tuple[str, int]]
  diverse: list[int]

  @property
  def indices(self) -> list[int]:
    return sorted({i for _, i in self.cases} | {*self.diverse})


def choose(results: Results, subject: str, *, each: int = 2, diverse: int = 4) -> Choice:
  """The worst, median and best images of a subject, and some on which readers disagree.

  By the main GED, else by the first metric with a value per image. The best are taken among images
  whose readers differ, if there are any: an empty image on which all agree shows nothing. `each` is
  how many of each kind there are, `diverse` how many to show disagreement.
  """
  metric = results.plan.main or next((m for m in results.plan.metrics if m.per_image), None)
  values = None if metric is None else results.values(subject, metric)
  spread = results.rows(subject, 'distances', 'd_yy')
  if metric is None or values is None:
    return Choice([], [*range(min(diverse, len(results.ids)))])
  differ = np.ones(len(values), bool) if spread is None else np.nan_to_num(spread) > 0
  badness = values if metric.about.better != 'high' else -values
  order = np.array([i for i in np.argsort(badness, kind='stable') if not np.isnan(values[i])], int)
  shown = [i for i in order if differ[i]] or [*order]
  half = max(0, len(order) // 2 - each // 2)
  groups = (
    ('worst', order[::-1][:each]),
    ('median', order[half : half + each]),
    ('best', np.array(shown, int)[:each]),
  )
  cases, seen = [], set()
  for why, indices in groups:
    for i in map(int, indices):
      if i not in seen:
        seen.add(i)
        cases.append((why, i))
  return Choice(cases, _spread_out(spread, diverse, len(values)))


def _spread_out(spread: np.ndarray | None, count: int, images: int) -> list[int]:
  """Images from much to little disagreement between readers."""
  if spread is None:
    return [*range(min(count, images))]
  order = np.argsort(-np.nan_to_num(spread), kind='stable')
  differ = max(1, int((np.nan_to_num(spread) > 0).sum()))
  places = np.linspace(0.05, 0.75, count) * (differ - 1)
  return [*dict.fromkeys(int(order[round(p)]) for p in places)]


def collect(
  evaluator: Evaluator,
  subjects: Sequence[Subject],
  batches: Batches,
  results: Results,
  indices: Sequence[int],
  *,
  rng: jax.Array,
) -> dict[int, Case]:
  """Predicts the images `indices` of an evaluation again -> Case by index; the draws are the same.

  batches and rng must be those of the evaluation, from the start; batches without a wanted image
  are passed over. All processes take part, and each gets all cases.
  """
  wanted = {int(i) for i in indices}
  needed = {int(results.batch[i]) for i in wanted}
  cases: dict[int, Case] = {}
  for number, host in enumerate(batches):
    if number > max(needed, default=-1):
      break
    if number in needed:
      predicted = _predicted(evaluator, subjects, host, rng)
      start = int(np.searchsorted(results.batch, number))
      for row, k in enumerate(np.flatnonzero(predicted['batch']['valid'])):
        if start + row in wanted:
          cases[start + row] = _case(start + row, results.ids[start + row], int(k), predicted)
  return cases


def _predicted(evaluator, subjects, host, rng) -> dict[str, Any]:
  batch = sharding.place_batch(host, evaluator.mesh)
  keys = ('image', 'labels', 'label_weight', 'valid')
  return {
    'batch': evaluator.fetch({k: batch[k] for k in keys}),
    'subjects': {s.name: evaluator.fetch(evaluator.predict(s, batch, rng)) for s in subjects},
  }


def _case(index: int, name: str, k: int, predicted: dict[str, Any]) -> Case:
  batch, row = predicted['batch'], lambda x: x[k]
  weight = batch['label_weight'][k]
  order = np.argsort(-weight, kind='stable')[: np.count_nonzero(weight)]
  readers = batch['labels'][k][order]
  predictions = {s: jax.tree.map(row, p) for s, p in predicted['subjects'].items()}
  image = as_large(batch['image'][k], readers.shape[1:])
  return Case(index, str(name), image, readers, weight[order], predictions)


def as_large(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """The nearest pixels of an image that data.fit made larger or smaller than its labels."""
  if image.shape[:2] == size:
    return image
  rows, columns = (nearest_indices(a, b) for a, b in zip(image.shape, size, strict=False))
  return image[rows[:, None], columns]
