"""The picture sections of the report page: cases and sample diversity.

Letters: M readers, N samples.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from car_jax.evaluate import charts, html, pictures
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.predict import READERS, Prediction
from car_jax.evaluate.results import Results
from car_jax.typing import Array

SHOWN_SAMPLES = 6
SHOWN_READERS = 6
WHY = {'worst': 'among the worst', 'median': 'typical', 'best': 'among the best'}


def tile(picture: pictures.Picture, caption: str, alt: str, kind: str = '') -> str:
  return html.tile(pictures.png(picture), caption, alt, kind)


def swatch(results: Results, subject: str) -> str:
  if subject == READERS:
    return '<span class="swatch ring"></span>'
  colour = charts.colour_of(results, subject)
  return f'<span class="swatch" style="background:{colour}"></span>'


def legend(results: Results, readers: int) -> str:
  """What the colours in the pictures mean."""
  rgb = lambda c: f'rgb({",".join(str(int(v)) for v in c)})'
  items = [
    f'<span><i style="background:{rgb(pictures.READER_COLOURS[m])}"></i>reader {m + 1}</span>'
    for m in range(min(readers, len(pictures.READER_COLOURS)))
  ]
  info = results.info
  items += [
    f'<span><i class="box" style="background:{rgb(c)}"></i>{escape(str(n))}</span>'
    for n, c in zip(info.class_names, np.asarray(info.palette), strict=True)
  ]
  ramp = ','.join(map(rgb, pictures.HEAT))
  items.append(
    f'<span>entropy 0 <i class="ramp" style="background:linear-gradient(90deg,{ramp})"></i>'
    f'log {info.num_classes}</span>'
  )
  return f'<div class="key">{"".join(items)}</div>'


def score_of(results: Results, subject: str, index: int) -> str:
  """'ged16 0.312' of one image, or nothing."""
  main = results.plan.main
  values = None if main is None else results.values(subject, main)
  if main is None or values is None or math.isnan(values[index]):
    return ''
  return f'{main.name} {charts.number(float(values[index]))}'


def cases(results: Results, choice: Choice, by_index: dict[int, Case]) -> str:
  """A card per case: image, readers, then a row per subject."""
  shown = [(why, by_index[i]) for why, i in choice.cases if i in by_index]
  readers = min(max([len(c.readers) for _, c in shown], default=0), SHOWN_READERS)
  return legend(results, readers) + ''.join(_card(results, why, case) for why, case in shown)


def _card(results: Results, why: str, case: Case) -> str:
  palette = results.info.palette
  outlined = _outlined(case, results.info)
  first = [
    tile(pictures.grey(case.image), 'image', f'image {case.id}'),
    tile(outlined, 'readers on it', 'outlines of readers over the image'),
  ]
  for m, reader in enumerate(case.readers[:SHOWN_READERS]):
    name = f'reader {m + 1}'
    first.append(tile(pictures.class_map(reader, palette), name, name, 'rest' if m == 0 else ''))
  share, none = shares(case, results.info)
  mean = pictures.greyed(pictures.probability_map(share, palette), none)
  first.append(tile(mean, 'mean', 'mean of the readers'))
  entropy = pictures.greyed(pictures.entropy_map(share), none)
  first.append(tile(entropy, 'entropy', 'entropy of the readers'))
  rows = [_row('Readers', f'{len(case.readers)} of them', first)]
  for subject, prediction in case.predictions.items():
    who = swatch(results, subject) + escape(subject)
    rows.append(_row(who, score_of(results, subject, case.index), _tiles(prediction, palette)))
  wide = ' wide' if case.image.shape[1] > 1.4 * case.image.shape[0] else ''
  return (
    f'<article class="case{wide}"><h3><span class="tag">{WHY[why]}</span>{escape(case.id)}</h3>'
    f'<div class="rows" tabindex="0" role="group" aria-label="pictures of {escape(case.id)}">'
    f'{"".join(rows)}</div></article>'
  )


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


def _row(who: str, small: str, tiles: Sequence[str]) -> str:
  return (
    f'<div class="row"><div class="who">{who}<small>{escape(small)}</small></div>'
    f'{"".join(tiles)}</div>'
  )


def _tiles(p: Prediction, palette: Any) -> list[str]:
  tiles = [
    tile(pictures.class_map(labels, palette), f'sample {n + 1}', f'sample {n + 1}')
    for n, labels in enumerate(p.labels[:SHOWN_SAMPLES])
  ]
  mean = pictures.probability_map(p.mean, palette)
  tiles.append(tile(mean, f'mean of {len(p.labels)}', 'mean of all samples', 'rest'))
  tiles.append(tile(pictures.entropy_map(p.mean), 'its entropy', 'entropy of the mean'))
  if p.own is not None:
    own = pictures.probability_map(p.own, palette)
    tiles.append(tile(own, 'own probs', 'class probabilities the method states', 'rest'))
    tiles.append(tile(pictures.entropy_map(p.own), 'their entropy', 'entropy of these'))
  return tiles


def diversity(results: Results, choice: Choice, by_index: dict[int, Case]) -> str:
  """A few images with every sample of every subject, most disagreement between readers first."""
  palette, out = results.info.palette, []
  for case in (by_index[i] for i in choice.diverse if i in by_index):
    over = _outlined(case, results.info)
    left = (
      f'<div class="bigger">{tile(over, "readers on the image", "outlines of the readers")}</div>'
    )
    sets = [_set('Readers', '', case.readers, palette)]
    for subject, p in case.predictions.items():
      name = swatch(results, subject) + escape(subject)
      sets.append(_set(name, score_of(results, subject, case.index), p.labels, palette))
    out.append(
      f'<article class="case"><h3>{escape(case.id)}</h3>'
      f'<div class="diverse">{left}<div>{"".join(sets)}</div></div></article>'
    )
  return ''.join(out)


def _set(name: str, small: str, maps: Array, palette: Any) -> str:
  tiles = ''.join(
    tile(pictures.class_map(m, palette), '', f'number {k + 1}') for k, m in enumerate(maps[:24])
  )
  note = f' <span class="note">{escape(small)}</span>' if small else ''
  return (
    f'<div class="set"><p><strong>{name}</strong>{note}</p><div class="wrap">{tiles}</div></div>'
  )


def strips(
  results: Results, subject: str, choice: Choice, by_index: dict[int, Case]
) -> dict[str, Any]:
  """File name -> picture for readers without a browser: a row of pictures per case."""
  out, palette = {}, results.info.palette
  for why, index in choice.cases:
    if index not in by_index:
      continue
    case, row = by_index[index], [pictures.grey(by_index[index].image)]
    row += [pictures.class_map(m, palette) for m in case.readers[:SHOWN_READERS]]
    p = case.predictions[subject]
    row += [pictures.class_map(m, palette) for m in p.labels[:SHOWN_SAMPLES]]
    row += [pictures.probability_map(p.mean, palette), pictures.entropy_map(p.mean)]
    out[f'case-{why}-{index}.png'] = pictures.strip(row)
  return out
