"""Writes the report folder: results.json, per_image.csv, report.md, report.html, pictures/."""

import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Mapping
from typing import Any

import flax
import jax
import numpy as np

import car_jax
from car_jax.evaluate import (
  charts,
  escaped,
  flip_charts,
  folders,
  page,
  page_pictures,
  pictures,
  svg,
  tables,
)
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.results import Results

RESULTS = 'results.json'


def versions() -> dict[str, str]:
  device = jax.devices()[0]
  return {
    'car_jax': car_jax.__version__,
    'python': platform.python_version(),
    'jax': jax.__version__,
    'flax': flax.__version__,
    'numpy': np.__version__,
    'device': f'{jax.device_count()} x {device.device_kind}',
    'system': f'{platform.system()} {platform.machine()}',
  }


@dataclasses.dataclass(frozen=True)
class About:
  """What was evaluated, in words. models: a line for each checkpoint; command: to make it again."""

  title: str
  split: str
  models: tuple[str, ...] = ()
  command: str = ''
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  created: str = dataclasses.field(default_factory=lambda: time.strftime('%Y-%m-%d %H:%M'))
  versions: Mapping[str, str] = dataclasses.field(default_factory=versions)


def write(
  folder: str | pathlib.Path,
  results: Results,
  about: About,
  choice: Choice,
  cases: Mapping[int, Case],
) -> pathlib.Path:
  """Writes the report and returns the path of its page; only process 0 writes.

  An older report in `folder` is replaced, as a whole and at the end. Raises UserError where
  `folder` holds anything else.
  """
  folder = pathlib.Path(folder)
  if jax.process_index() == 0:
    with folders.replaced(folder, RESULTS) as part:
      (part / 'pictures').mkdir()
      numbers = _numbers(results, about, choice)
      (part / RESULTS).write_text(json.dumps(numbers, indent=1, allow_nan=False) + '\n')
      (part / 'per_image.csv').write_text(tables.as_csv(results))
      (part / 'report.html').write_text(page.page(results, about, choice, dict(cases)))
      drawn = _pictures(part / 'pictures', results, choice, dict(cases))
      (part / 'report.md').write_text(_markdown(results, about, drawn))
  return folder / 'report.html'


def _numbers(results: Results, about: About, choice: Choice) -> dict[str, Any]:
  info = results.info
  data = dict(
    name=info.name,
    split=about.split,
    classes=[str(n) for n in info.class_names],
    images=len(results.ids),
    patients=None if results.groups is None else results.units[0],
  )
  cases = [dict(why=why, id=str(results.ids[i])) for why, i in choice.cases]
  words = {k: v for k, v in dataclasses.asdict(about).items() if k != 'split'}
  return tables.plain(words | dict(data=data) | tables.as_json(results) | dict(cases=cases))


def _pictures(
  folder: pathlib.Path, results: Results, choice: Choice, cases: dict[int, Case]
) -> dict[str, str]:
  """Writes charts and strips as files -> file name by what it shows."""
  out, main = {}, results.plan.main

  def chart(name: str, title: str, drawing: str) -> None:
    (folder / name).write_text(svg.standalone(drawing))
    out[name] = title

  if main is not None:
    chart('scores.svg', f'{main.name} with 95 % intervals', charts.intervals(results, main))
    chart('per-image.svg', f'{main.name} of all images', charts.histogram(results, main))
    if any(results.means(s, 'distances', 'd_ys') is not None for s in results.subjects):
      title = 'Mean distances between samples and readers'
      chart('distances.svg', title, charts.decomposition(results))
      chart('samples.svg', 'GED by number of samples', charts.curve(results))
  for subject in results.subjects:
    if results.reliability(subject, 'mean') is not None:
      name = f'reliability-{folders.slug(subject)}.svg'
      chart(name, f'Reliability: {subject}', charts.reliability(results, subject))
  if results.plan.flips:
    chart('flips.svg', 'How often each class is flipped', flip_charts.rates(results))
    for subject in results.subjects:
      name = f'modes-{folders.slug(subject)}.svg'
      chart(name, f'Mass of every mode: {subject}', flip_charts.masses(results, subject))
  subject = results.subjects[0]
  for name, picture in page_pictures.strips(results, subject, choice, cases).items():
    (folder / name).write_bytes(pictures.png(picture))
    index = int(name.removesuffix('.png').rsplit('-', 1)[1])
    out[name] = f'{name.split("-")[1].capitalize()}: {results.ids[index]}'
  return out


def _markdown(results: Results, about: About, drawn: Mapping[str, str]) -> str:
  count, unit = results.units
  people = '' if unit == 'images' else f' of {count:,} {unit}'
  data = f'{results.info.name}, {about.split}: {len(results.ids):,} images{people}'
  shown = f'image, readers, samples of {results.subjects[0]}, their mean, its entropy'
  lines = [
    f'# {escaped.prose(about.title)}',
    '',
    f'{escaped.prose(data)}, {results.plan.samples} samples per image. {about.created}.',
    '',
    *(
      f'- {escaped.prose(line)}'
      for line in (*about.models, *tables.findings(results), *results.remarks())
    ),
    '',
    '## Scores',
    '',
    f'Mean and 95 % interval (bootstrap over {count:,} {unit}); the best in bold.',
    '',
    tables.markdown_scores(results),
    '## Pictures',
    '',
    f'Cases show, from left to right: {escaped.prose(shown)}.',
    '',
  ]
  titles = {name: escaped.prose(title) for name, title in drawn.items()}
  lines += [f'{title}\n\n![{title}](pictures/{name})\n' for name, title in titles.items()]
  lines += ['## How to reproduce', '', *escaped.block(about.command), '']
  lines += [', '.join(f'{k} {v}' for k, v in about.versions.items()), '']
  return '\n'.join(lines)
