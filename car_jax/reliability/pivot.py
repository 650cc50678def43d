"""A study's scores as papers print them: a row for each model, a column for each set.

The tables of RELIS (arXiv 2303.11298) and GenVal (arXiv 2312.09231): robustness, calibration before
and after recalibration, unknown pixels, images of another data set, errors found by rejection; and
which images fail (arXiv 2406.03323).
"""

import math
from collections.abc import Iterable, Sequence

from car_jax.metrics import of_images
from car_jax.metrics.base import ARROWS
from car_jax.metrics.texts import FAILING
from car_jax.reliability.view import Metric, View, number
from car_jax.report.table import Cell, Table, table

Row = tuple[tuple[str, ...], Sequence[float]]  # names, and a value for each set


def tables(view: View) -> list[Table]:
  """Those that the study has numbers for."""
  made = (
    _accuracy(view),
    _calibration(view),
    _plain(view, 'unknown_auroc', 'Pixels of unknown objects'),
    *(t for t in image_level(view)[:1]),
    _plain(view, 'prr', 'Errors found by rejecting unsure pixels'),
    *failing(view)[:1],
  )
  return [t for t in made if t is not None and t.rows]


def _accuracy(view: View) -> Table | None:
  """With the published score beside, where a model has one."""
  published = {m: about.get('published_miou') for m, about in view.models.items()}
  if view.accuracy != 'miou' or not any(published.values()):
    return _plain(view, view.accuracy, 'Robustness')
  shown = {m: '–' if v is None else f'{v:g}' for m, v in published.items()}
  rows = [((m, shown[m]), _values(view, m, view.plain, 'miou')) for m in view.models]
  return _table('Robustness', view.metrics['miou'], ('model', 'published'), view.sets, rows)


def _plain(view: View, name: str, title: str) -> Table | None:
  """One score before recalibration."""
  if name not in view.metrics:
    return None
  rows = [((m,), _values(view, m, view.plain, name)) for m in view.models]
  return _table(title, view.metrics[name], ('model',), view.sets, rows)


def _calibration(view: View) -> Table | None:
  if 'ece' not in view.metrics:
    return None
  rows = [((m, c), _values(view, m, c, 'ece')) for m in view.models for c in view.calibrators]
  title = 'Calibration before and after' if len(view.calibrators) > 1 else 'Calibration'
  return _table(title, view.metrics['ece'], ('model', 'calibrator'), view.sets, rows)


def unknown(view: View) -> list[Table]:
  """A table for each score of unknown objects."""
  names = [m.name for m in view.metrics.values() if m.group == view.about('unknown_auroc').group]
  made = [_plain(view, name, view.metrics[name].title) for name in names if name in view.metrics]
  return [t for t in made if t is not None and t.rows] if 'unknown_auroc' in view.metrics else []


IMAGE_LEVEL = {'auroc': ('AUROC', 'high'), 'aupr': ('AUPR', 'high'), 'fpr95': ('FPR95', 'low')}


def image_level(view: View) -> list[Table]:
  """Images of each other set against those of the known one: a table for each score and way to
  judge it."""
  entries = view.study.get('image_ood') or []
  out = []
  for score in dict.fromkeys(e.get('score') for e in entries):
    of = {(e['model'], e['calibrator'], e['other']): e for e in entries if e.get('score') == score}
    sets = [*dict.fromkeys(other for _, _, other in of)]
    for key, (title, better) in IMAGE_LEVEL.items():
      who = dict.fromkeys((model, way) for model, way, _ in of)
      rows = [(w, [number((of.get((*w, s)) or {}).get(key)) for s in sets]) for w in who]
      metric = Metric(key, title, better, percent=True)
      names = ('model', 'calibrator')
      out.append(_table(f'{title} of whole images by {score}', metric, names, sets, rows))
  return [t for t in out if t.rows]


def failing(view: View) -> list[Table]:
  """A table for each score of failing images, before recalibration: a row for each model and
  confidence."""
  by_score: dict[str, dict[str, Metric]] = {}
  for m in view.metrics.values():
    if m.group == FAILING:
      score, confidence = of_images.split(m.name)
      by_score.setdefault(score, {})[confidence] = m
  out = []
  for score, by in by_score.items():
    pairs = [(model, confidence) for model in view.models for confidence in by]
    rows = [((a, b), _values(view, a, view.plain, by[b].name)) for a, b in pairs]
    metric = next(iter(by.values()))
    title = metric.title.partition(', by ')[0]
    option = ''.join(score.partition('[')[1:])
    metric = metric._replace(title=f'{title} {option}'.strip())
    out.append(_table(metric.title, metric, ('model', 'confidence'), view.sets, rows))
  return [t for t in out if t.rows]


def _values(view: View, model: str, calibrator: str, name: str) -> list[float]:
  return [view.value(model, s, calibrator, name) for s in view.sets]


def _table(
  title: str, metric: Metric, names: tuple[str, ...], sets: Iterable[str], rows: Sequence[Row]
) -> Table:
  """Without rows and columns that have no value."""
  sets, rows = [*sets], [row for row in rows if any(map(math.isfinite, row[1]))]
  kept = [i for i in range(len(sets)) if any(math.isfinite(values[i]) for _, values in rows)]
  best = {i: _best(metric, [values[i] for _, values in rows]) for i in kept}
  digits = 1 if metric.percent else 3

  def cell(i: int, value: float) -> Cell:
    return Cell(metric.text(value, digits, unit=False), best=value == best[i])

  about = f'{metric.title} {ARROWS[metric.better]}{", in %" if metric.percent else ""}'
  head = (*names, *(sets[i] for i in kept))
  texts = [(*who, *(cell(i, values[i]) for i in kept)) for who, values in rows]
  return table(title, head, texts, words=range(len(names)), about=about)


def _best(metric: Metric, values: Sequence[float]) -> float:
  """nan for values that are all equal, or alone."""
  known = {v for v in values if math.isfinite(v)}
  pick = {'high': max, 'low': min}.get(metric.better)
  return pick(known) if pick and len(known) > 1 else math.nan
