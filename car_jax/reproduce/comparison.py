"""The published scores beside ours, and whether they agree; of what the stages have written."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from car_jax import files, folders, published
from car_jax.published import Score
from car_jax.reliability import study_options
from car_jax.report.table import Cell, Table, number, span, table
from car_jax.reproduce import stages
from car_jax.reproduce.stages import Request

LEAST = 0.01  # of the tolerances of trainings
NAMES = ('reproduction.json', 'reproduction.md')


@dataclasses.dataclass(frozen=True)
class Line:
  """One score of one model. seeds: the value of each training; low, high: ends of 95 % intervals.

  known: what is published of it, None for nothing.
  """

  model: str
  score: str
  known: Score | None
  seeds: tuple[float, ...]
  low: float | None = None
  high: float | None = None

  @property
  def value(self) -> float:
    return float(np.mean(self.seeds))

  @property
  def inside(self) -> bool | None:
    """Whether it is as published, within the tolerance; None where nothing is published."""
    if self.known is None:
      return None
    return abs(self.value - self.known.value) <= self.known.tolerance


def lines(request: Request) -> list[Line]:
  """Of all reports that are there."""
  if request.experiment.study:
    return [*_of_study(request)]
  names = ['released'] if request.released else [t.name for t in request.experiment.trainings]
  places = {name: request.workdir / f'{name}-report' / stages.RESULTS for name in names}
  there = {name: files.read_json(place) for name, place in places.items() if place.exists()}
  kind: published.Kind = 'weights' if request.released else 'training'
  return [line for name, content in there.items() for line in _of_report(name, content, kind)]


def _of_report(name: str, content: Mapping[str, Any], kind: published.Kind) -> Iterator[Line]:
  """The method's own predictor, of all its trainings."""
  known = {s.score: s for s in known_of(content['published'], kind)}
  first, predictor = content['subjects'][0], content['subjects'][0]['name'].partition(': ')[2]
  same = lambda s: predictor and s['name'].partition(': ')[2] == predictor
  rows = [s for s in content['subjects'] if s is first or same(s)]
  for metric in content['metrics']:
    entries = [s['scores'][metric['name']] for s in rows]
    seeds = tuple(e['mean'] for e in entries if e['mean'] is not None)
    ends = [(e['low'], e['high']) for e in entries if e['low'] is not None]
    if seeds:
      low, high = (min(x for x, _ in ends), max(x for _, x in ends)) if ends else (None, None)
      yield Line(name, metric['name'], known.get(metric['name']), seeds, low, high)


def known_of(entries: list[Mapping[str, Any]], kind: published.Kind) -> list[Score]:
  """What is published of trainings, or of weights; where only the other is, that one.

  A training is then not held to what the very weights can meet.
  """
  keys = [f.name for f in dataclasses.fields(Score)]
  every = [Score(**{k: entry[k] for k in keys}) for entry in entries]
  if own := [s for s in every if s.of == kind]:
    return own
  least = LEAST if kind == 'training' else 0.0
  return [dataclasses.replace(s, tolerance=max(s.tolerance, least)) for s in every]


def _of_study(request: Request) -> Iterator[Line]:
  """The mIoU of each model on all validation images."""
  place = request.workdir / 'validation' / stages.STUDY
  if not place.exists():
    return
  runs = request.workdir / 'models'
  models = study_options.load(f'{request.experiment.study}:{runs}').to_dict()['models']
  for cell in files.read_json(place)['cells']:
    if cell['set'] == 'validation' and cell['model'] in models:
      given = published.scores(models[cell['model']]['published']['scores'])
      score, known = cell['values']['miou'], next(iter(given), None)
      yield Line(cell['model'], 'miou', known, (score['value'],), score['low'], score['high'])


def as_table(compared: list[Line], judged: bool) -> Table:
  """A row for each score. judged: says which agree; else none does, whatever the numbers."""
  rows = [_row(line, judged) for line in compared]
  head = [
    'of',
    'score',
    'published',
    'ours',
    '95 % interval',
    'seeds',
    'tolerance',
    'verdict',
    'source',
  ]
  return table('published and reproduced scores', head, rows, words=(0, 1, 7, 8))


def _row(line: Line, judged: bool) -> list[Cell]:
  places = 3 if line.value >= 0.1 else 5
  known, spread = line.known, float(np.std(line.seeds, ddof=1)) if len(line.seeds) > 1 else None
  ours = number(line.value, places) + ('' if spread is None else f' ± {number(spread, places)}')
  ends = span((line.low, line.high), places)
  inside = {True: 'inside', False: 'OUTSIDE', None: '–'}[line.inside if judged else None]
  texts = [line.model, line.score, known.text if known else '–', ours, ends, f'{len(line.seeds)}']
  texts += [f'± {known.tolerance:g}' if known else '–', inside, known.source if known else '–']
  return [Cell(text) for text in texts]


def write(request: Request, compared: list[Line]) -> list[str]:
  """Writes the table as Markdown and as JSON to the workdir -> what the terminal shows."""
  departures = request.departures()
  made = as_table(compared, judged=not departures)
  about = [f'{request.experiment.about}.', *request.caveat()]
  content = dict(
    about=request.experiment.about,
    departures=departures,
    lines=[dataclasses.asdict(x) | dict(value=x.value, inside=x.inside) for x in compared],
  )
  texts = (
    json.dumps(content, indent=1) + '\n',
    '\n'.join(['# Reproduction', '', *about, '', *made.markdown(), '']),
  )
  for name, text in zip(NAMES, texts, strict=True):
    with folders.whole(request.workdir / name) as part:
      part.write_text(text)
  return [*about, '', *made.terminal(100), '', f'table: {request.workdir / NAMES[1]}']


def agrees(request: Request, compared: list[Line]) -> bool:
  """False where a reproduction has a score outside its tolerance."""
  return bool(request.departures()) or all(line.inside is not False for line in compared)
