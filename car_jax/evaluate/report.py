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
from car_jax import paths
from car_jax.evaluate import folders, tables, tiles
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.results import Results
from car_jax.report import evaluation, svg

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
  folder = paths.of(folder)
  if jax.process_index() == 0:
    with folders.replaced(folder, RESULTS) as part:
      content, by_index = content_of(results, about, choice), dict(cases)
      (part / RESULTS).write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')
      (part / 'per_image.csv').write_text(tables.as_csv(results))
      gallery = evaluation.Gallery(
        tiles.legend(results, max([len(c.readers) for c in by_index.values()], default=0)),
        tiles.cases(results, choice, by_index),
        tiles.diversity(results, choice, by_index),
      )
      (part / 'report.html').write_text(evaluation.page(content, gallery))
      (part / 'pictures').mkdir()
      strips = tiles.strips(results, results.subjects[0], choice, by_index)
      for name, (_, picture) in strips.items():
        (part / 'pictures' / name).write_bytes(picture)
      sections = evaluation.figures.by_section(content).values()
      drawn = {name: f for of in sections for name, f in of.items()}
      for name, figure in drawn.items():
        (part / 'pictures' / name).write_text(svg.standalone(figure))
      titles = {k: f.title for k, f in drawn.items()} | {k: t for k, (t, _) in strips.items()}
      (part / 'report.md').write_text(evaluation.markdown(content, titles))
  return folder / 'report.html'


def content_of(results: Results, about: About, choice: Choice) -> dict[str, Any]:
  """Everything of results.json: what was evaluated, all numbers, and which cases are shown."""
  info = results.info
  data = dict(
    name=info.name,
    split=about.split,
    classes=[str(n) for n in info.class_names],
    images=len(results.ids),
    readers=info.readers,
    patients=None if results.groups is None else results.units[0],
    citation=info.citation,
    licence=info.licence,
  )
  cases = [dict(why=why, id=str(results.ids[i])) for why, i in choice.cases]
  words = {k: v for k, v in dataclasses.asdict(about).items() if k != 'split'}
  return tables.plain(words | dict(data=data) | tables.as_json(results) | dict(cases=cases))
