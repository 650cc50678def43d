"""Cases and the diversity of samples as pictures for the report's page.

Letters: M readers, N samples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from car_jax.evaluate import pictures
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.predict import Prediction
from car_jax.evaluate.results import Results
from car_jax.report.page import Card, Strip, Tile
from car_jax.report.table import number
from car_jax.typing import Array

SHOWN_SAMPLES = 6
SHOWN_READERS = 6
DIVERSE_SAMPLES = 24
WHY = {'worst': 'among the worst', 'median': 'typical', 'best': 'among the best'}


def tile(picture: pictures.Picture, caption: str, alt: str, *, gap: bool = False) -> Tile:
  return Tile(pictures.png(picture), caption, alt, gap=gap)


def rgb(colour: Sequence[int]) -> str:
  return f'rgb({",".join(str(int(v)) for v in colour)})'


def legend(results: Results, readers: int) -> dict[str, Any]:
  """What the colours in the pictures mean: of readers, of classes, and of entropy."""
  info = results.info
  shown = pictures.READER_COLOURS[:readers]
  return dict(
    readers={f'reader {m + 1}': rgb(c) for m, c in enumerate(shown)},
    classes={
      str(n): rgb(c) for n, c in zip(info.class_names, np.asarray(info.palette), strict=True)
    },
    ramp=','.join(map(rgb, pictures.HEAT)),
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
    tile(pictures.grey(case.image), 'image', f'image {case.id}'),
    tile(_outlined(case, results.info), 'readers on it', 'outlines of readers over the image'),
  ]
  for m, reader in enumerate(case.readers[:SHOWN_READERS]):
    name = f'reader {m + 1}'
    first.append(tile(pictures.class_map(reader, palette), name, name, gap=m == 0))
  share, none = shares(case, results.info)
  mean = pictures.greyed(pictures.probability_map(share, palette), none)
  first.append(tile(mean, 'mean', 'mean of the readers'))
  entropy = pictures.greyed(pictures.entropy_map(share), none)
  first.append(tile(entropy, 'entropy', 'entropy of the readers'))
  strips = [Strip('Readers', f'{len(case.readers)} of them', tuple(first))]
  for subject, prediction in case.predictions.items():
    score = score_of(results, subject, case.index)
    strips.append(Strip(subject, score, tuple(_tiles(prediction, palette))))
  wide = case.image.shape[1] > 1.4 * case.image.shape[0]
  return Card(case.id, tuple(strips), tag=WHY[why], wide=wide)


def _outlined(case: Case, info: Any) -> pictures.Picture:
  """The readers' outlines over the image; ignored regions are no objects and have none."""
  readers = case.readers[:SHOWN_READERS]
  return pictures.contours(case.image, np.where(readers == info.ignore_label, 0, readers))


def shares(case: Case, info: Any) -> tuple[np.ndarray, np.ndarray]:
  """The readers' share of each class [H, W, C], and where no reader gives one [H, W]."""
  ids = np.arange(info.num_classes)
  votes = (case.readers[..., None] == ids) & (ids != info.ignore_label)
  share = np.tensordot(case.weight, votes, 1)
  total = share.sum(-1, keepdims=True)
  return share / np.where(total > 0, total, 1), total[..., 0] == 0


def _tiles(p: Prediction, palette: Any) -> list[Tile]:
  out = [
    tile(pictures.class_map(labels, palette), f'sample {n + 1}', f'sample {n + 1}')
    for n, labels in enumerate(p.labels[:SHOWN_SAMPLES])
  ]
  mean = pictures.probability_map(p.mean, palette)
  out.append(tile(mean, f'mean of {len(p.labels)}', 'mean of all samples', gap=True))
  out.append(tile(pictures.entropy_map(p.mean), 'its entropy', 'entropy of the mean'))
  if p.own is not None:
    own = pictures.probability_map(p.own, palette)
    out.append(tile(own, 'own probs', 'class probabilities the method states', gap=True))
    out.append(tile(pictures.entropy_map(p.own), 'their entropy', 'entropy of these'))
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
  return tuple(
    tile(pictures.class_map(m, palette), '', f'number {k + 1}')
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
    row = pictures.png(strip(by_index[index], subject, palette))
    out[f'case-{why}-{index}.png'] = title, row
  return out


def strip(case: Case, subject: str, palette: Any) -> pictures.Picture:
  """An image, its readers, a subject's samples, their mean and its entropy side by side."""
  p = case.predictions[subject]
  maps = (*case.readers[:SHOWN_READERS], *p.labels[:SHOWN_SAMPLES])
  row = [pictures.grey(case.image), *(pictures.class_map(m, palette) for m in maps)]
  return pictures.strip(
    [*row, pictures.probability_map(p.mean, palette), pictures.entropy_map(p.mean)]
  )
