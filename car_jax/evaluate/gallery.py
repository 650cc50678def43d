"""Which images the report shows, their predictions, and these as pictures for its page.

Letters: I images, N samples, M readers, H x W pixels, C classes.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax import sharding
from car_jax.data import compact, transforms
from car_jax.evaluate.harness import Batches, Evaluator
from car_jax.evaluate.predict import Prediction, Subject
from car_jax.evaluate.results import Results
from car_jax.report import rendering
from car_jax.report.page import Card, Strip, Tile
from car_jax.report.table import number
from car_jax.typing import Array

LABELS = 'labels', 'label_weight', 'valid'


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
class Collected:
  """cases by index. seconds: subject -> wall time of an image in the fastest batch. batch: the last
  one that was predicted, on the devices."""

  cases: dict[int, Case]
  seconds: dict[str, float]
  batch: dict[str, Any]


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
) -> Collected:
  """Predicts the images `indices` of an evaluation again; the draws are the same.

  batches and rng must be those of the evaluation, from the start. All processes take part, and
  each gets all cases.
  """
  cases: dict[int, Case] = {}
  seconds: dict[str, float] = {}
  batch: dict[str, Any] = {}
  for host, rows in _together(evaluator, batches, results, {int(i) for i in indices}):
    batch = sharding.place_batch(host, evaluator.mesh)
    predicted, took = _predicted(evaluator, subjects, batch, rng)
    seconds |= {s: min(took[s], seconds.get(s, math.inf)) for s in took}
    labels = evaluator.fetch({k: batch[k] for k in ('image', *LABELS)})
    cases |= {i: _case(i, results.ids[i], k, labels, predicted) for i, k in rows.items()}
  return Collected(dict(sorted(cases.items())), seconds, batch)


def _together(
  evaluator: Evaluator, batches: Batches, results: Results, wanted: set[int]
) -> Iterator[tuple[dict[str, np.ndarray], dict[int, int]]]:
  """Batches of these images alone, as large as the given ones: this process's rows of each, and the
  rows of all processes by image.

  An image stays in the process that reads it; where another has more, rows are repeated.
  """
  here, hosts = jax.process_index(), jax.process_count()
  needed = {int(results.batch[i]) for i in wanted}
  alike: dict[tuple[int, Any], list[list[Any]]] = {}  # (rows, shapes) -> images by process
  for k, host in enumerate(batches):
    if k in needed:
      host = compact.numbers(host)
      valid = evaluator.fetch(sharding.place_batch({'valid': host['valid']}, evaluator.mesh))
      local, first = len(host['valid']), int(np.searchsorted(results.batch, k))
      shapes = tuple((name, v.shape) for name, v in host.items())
      by_host = alike.setdefault((local, shapes), [[] for _ in range(hosts)])
      for i, place in enumerate(np.flatnonzero(valid['valid']), first):
        if i in wanted:
          owner, row = divmod(int(place), local)
          row = row if owner == here else 0
          by_host[owner].append((i, {name: np.array(v[row]) for name, v in host.items()}))
    if k >= max(needed, default=-1):
      break
  for (local, _), by_host in alike.items():
    for start in range(0, max(map(len, by_host)), local):
      parts = [images[start : start + local] for images in by_host]
      rows = {i: h * local + k for h, part in enumerate(parts) for k, (i, _) in enumerate(part)}
      own = parts[here] or next(filter(None, parts))
      full = [own[min(k, len(own) - 1)][1] for k in range(local)]
      yield {name: np.stack([image[name] for image in full]) for name in full[0]}, rows


def _predicted(
  evaluator: Evaluator, subjects: Sequence[Subject], batch: Any, rng: jax.Array
) -> tuple[dict[str, Prediction], dict[str, float]]:
  """Of each subject its Prediction as numpy, and how many seconds an image took."""
  made, seconds = {}, {}
  for s in subjects:
    began = time.perf_counter()
    prediction = jax.block_until_ready(evaluator.predict(s, batch, rng))
    seconds[s.name] = (time.perf_counter() - began) / len(batch['image'])
    made[s.name] = evaluator.fetch(prediction)
  return made, seconds


def _case(index: int, name: str, k: int, batch: Any, predicted: Mapping[str, Prediction]) -> Case:
  row = lambda x: x[k]
  weight = batch['label_weight'][k]
  order = np.argsort(-weight, kind='stable')[: np.count_nonzero(weight)]
  readers = batch['labels'][k][order]
  predictions = {s: jax.tree.map(row, p) for s, p in predicted.items()}
  image = as_large(batch['image'][k], readers.shape[1:])
  return Case(index, str(name), image, readers, weight[order], predictions)


def as_large(image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """The nearest pixels of an image that data.fit made larger or smaller than its labels."""
  return image if image.shape[:2] == size else transforms.nearest_resized(image, *size)


SHOWN_SAMPLES = 6
SHOWN_READERS = 6
DIVERSE_SAMPLES = 24
WHY = {'worst': 'among the worst', 'median': 'typical', 'best': 'among the best'}


def tile(picture: rendering.Picture, caption: str, alt: str, *, gap: bool = False) -> Tile:
  return Tile(rendering.png(picture), caption, alt, gap=gap)


def legend(results: Results, readers: int) -> dict[str, Any]:
  """What the colours in the pictures mean: of readers, of classes, and of entropy."""
  info = results.info
  shown = rendering.READER_COLOURS[:readers]
  return dict(
    readers={f'reader {m + 1}': rendering.rgb(c) for m, c in enumerate(shown)},
    classes={
      str(n): rendering.rgb(c)
      for n, c in zip(info.class_names, np.asarray(info.palette), strict=True)
    },
    ramp=','.join(map(rendering.rgb, rendering.HEAT)),
    highest=f'log {info.num_classes}',
  )


def score_of(results: Results, subject: str, index: int) -> str:
  """'ged16 0.312' of one image, or nothing."""
  main = results.plan.main
  values = None if main is None else results.values(subject, main)
  if main is None or values is None or np.isnan(values[index]):
    return ''
  return f'{main.name} {number(float(values[index]))}'


def cases(results: Results, choice: Choice, by_index: dict[int, Case]) -> list[Card]:
  """A card per case: image, readers, then a row per subject."""
  return [_card(results, why, by_index[i]) for why, i in choice.cases if i in by_index]


def _card(results: Results, why: str, case: Case) -> Card:
  palette = results.info.palette
  first = [
    tile(rendering.grey(case.image), 'image', f'image {case.id}'),
    tile(_outlined(case, results.info), 'readers on it', 'outlines of readers over the image'),
  ]
  for m, reader in enumerate(case.readers[:SHOWN_READERS]):
    name = f'reader {m + 1}'
    first.append(tile(rendering.class_map(reader, palette), name, name, gap=m == 0))
  share, none = shares(case, results.info)
  mean = rendering.greyed(rendering.probability_map(share, palette), none)
  first.append(tile(mean, 'mean', 'mean of the readers'))
  entropy = rendering.greyed(rendering.entropy_map(share), none)
  first.append(tile(entropy, 'entropy', 'entropy of the readers'))
  strips = [Strip('Readers', f'{len(case.readers)} of them', tuple(first))]
  for subject, prediction in case.predictions.items():
    score = score_of(results, subject, case.index)
    strips.append(Strip(subject, score, tuple(_tiles(prediction, palette))))
  wide = case.image.shape[1] > 1.4 * case.image.shape[0]
  return Card(case.id, tuple(strips), tag=WHY[why], wide=wide)


def _outlined(case: Case, info: Any) -> rendering.Picture:
  """The readers' outlines over the image; ignored regions are no objects and have none."""
  readers = case.readers[:SHOWN_READERS]
  return rendering.contours(case.image, np.where(readers == info.ignore_label, 0, readers))


def shares(case: Case, info: Any) -> tuple[np.ndarray, np.ndarray]:
  """The readers' share of each class [H, W, C], and where no reader gives one [H, W]."""
  ids = np.arange(info.num_classes)
  votes = (case.readers[..., None] == ids) & (ids != info.ignore_label)
  share = np.tensordot(case.weight, votes, 1)
  total = share.sum(-1, keepdims=True)
  return share / np.where(total > 0, total, 1), total[..., 0] == 0


def _tiles(p: Prediction, palette: Any) -> list[Tile]:
  out = [
    tile(rendering.class_map(labels, palette), f'sample {n + 1}', f'sample {n + 1}')
    for n, labels in enumerate(p.labels[:SHOWN_SAMPLES])
  ]
  mean = rendering.probability_map(p.mean, palette)
  out.append(tile(mean, f'mean of {len(p.labels)}', 'mean of all samples', gap=True))
  out.append(tile(rendering.entropy_map(p.mean), 'its entropy', 'entropy of the mean'))
  if p.own is not None:
    own = rendering.probability_map(p.own, palette)
    out.append(tile(own, 'own probs', 'class probabilities the method states', gap=True))
    out.append(tile(rendering.entropy_map(p.own), 'their entropy', 'entropy of these'))
  return out


def diversity(results: Results, choice: Choice, by_index: dict[int, Case]) -> list[Card]:
  """A few images with every sample of every subject, most disagreement between readers first."""
  out = []
  for case in (by_index[i] for i in choice.diverse if i in by_index):
    over = _outlined(case, results.info)
    maps: dict[str, Array] = {'Readers': case.readers}
    maps |= {subject: p.labels for subject, p in case.predictions.items()}
    strips = tuple(
      Strip(name, score_of(results, name, case.index) if name in results.cells else '', several)
      for name, several in ((n, _maps(m, results.info.palette)) for n, m in maps.items())
    )
    first = tile(over, 'readers on the image', 'outlines of the readers')
    out.append(Card(case.id, strips, first=first))
  return out


def _maps(maps: Array, palette: Any) -> tuple[Tile, ...]:
  """The first of several maps; a single one where all are alike."""
  if len(maps) > 1 and (maps == maps[:1]).all():
    return (tile(rendering.class_map(maps[0], palette), f'all {len(maps)}', 'all of them'),)
  return tuple(
    tile(rendering.class_map(m, palette), '', f'number {k + 1}')
    for k, m in enumerate(maps[:DIVERSE_SAMPLES])
  )


def strips(
  results: Results, subject: str, choice: Choice, by_index: dict[int, Case]
) -> dict[str, tuple[str, bytes]]:
  """File name -> title and picture for readers without a browser: a row of pictures per case."""
  out, palette = {}, results.info.palette
  for why, index in choice.cases:
    if index not in by_index:
      continue
    title = f'{why.capitalize()}: {results.ids[index]}'
    row = rendering.png(strip(by_index[index], subject, palette))
    out[f'case-{why}-{index}.png'] = title, row
  return out


def strip(case: Case, subject: str, palette: Any) -> rendering.Picture:
  """An image, its readers, a subject's samples, their mean and its entropy side by side."""
  p = case.predictions[subject]
  maps = (*case.readers[:SHOWN_READERS], *p.labels[:SHOWN_SAMPLES])
  row = [rendering.grey(case.image), *(rendering.class_map(m, palette) for m in maps)]
  return rendering.strip(
    [*row, rendering.probability_map(p.mean, palette), rendering.entropy_map(p.mean)]
  )
