"""The figures of a reliability study: accuracy against calibration, shift, confidence, correlation.

Every series has a colour, a marker and a dash of its own, so that a figure reads in black and white
too. Values are in per cent where their metric is one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from car_jax.metrics.base import ARROWS, BETTER
from car_jax.reliability import survival
from car_jax.reliability.correlation import SIDES
from car_jax.reliability.view import Metric, View, number
from car_jax.report.figure import (
  DOTTED,
  Axis,
  Figure,
  Point,
  Series,
  of_values,
  styles,
  thinned,
)

KEY = ('miou', 'ece', 'auroc', 'unknown_auroc')  # one per question, for figures by shift
BANDS = 8  # with more series than this, bands would only hide each other
MARKED = 2  # with more lines than this through the same bins, markers would only hide each other
PLOT, SMALL = (440, 320), (340, 270)
SHIFT = Axis('shift (0 none, 1 strongest)', 0, 1)
FINE = 0.003  # of a curve's range: what no eye would see


def axis(m: Metric, view: View) -> Axis:
  """The same for a metric in all its figures; its name says which end is better."""
  known = [m.scale * v for v in view.values(m.name)] or [0.0, 1.0]
  low, high = min(known), max(known)
  margin = 0.05 * (high - low or 1)
  name = f'{m.heading}, {ARROWS[m.better]} {BETTER[m.better]}' if m.better else m.heading
  return Axis(name, 0.0 if 0 <= low < 0.5 * high else low - margin, high + margin)


def calibrated(view: View, calibrator: str) -> str:
  return 'Before recalibration' if calibrator == view.plain else f'Recalibrated: {calibrator}'


def scatters(view: View) -> list[Figure]:
  """Accuracy against calibration error, one for each calibrator (RELIS, arXiv 2303.11298).

  Filled: in-domain; hollow: shifted, the strongest shift at the end of an arrow.
  """
  if not (view.accuracy and 'ece' in view.metrics):
    return []
  across, up = view.metrics[view.accuracy], view.metrics['ece']
  ends = (view.reference, view.strongest)
  # the arrow is from the first to the last
  order = [s for s in view.sets if s == ends[0]] + [s for s in view.sets if s not in ends]
  order += [s for s in view.sets if s == ends[1] and s != ends[0]]
  out = []
  for calibrator in view.calibrators:
    series = []
    for model, style in styles(view.models).items():
      value = lambda s, m, who=(model, calibrator): m.scale * view.value(who[0], s, who[1], m.name)
      points = tuple(
        Point(value(s, across), value(s, up), label=s, hollow=_shifted(view, s)) for s in order
      )
      arrow = all(s in view.sets and math.isfinite(value(s, across) + value(s, up)) for s in ends)
      series.append(Series(model, style, points, line=False, arrow=arrow))
    out.append(
      Figure(
        calibrated(view, calibrator), axis(across, view), axis(up, view), tuple(series),
        labels=dict(calibrator=calibrator), size=PLOT,
      )
    )  # fmt: skip
  return out


def _shifted(view: View, dataset: str) -> bool:
  return view.sets[dataset].get('role') != 'in-domain'


def shown(view: View) -> list[Metric]:
  return [view.metrics[m] for m in KEY if m in view.metrics and view.values(m)]


def lines(view: View) -> dict[str, list[str]]:
  """Conditions that have several sets, by growing shift."""
  return {c: s for c, s in view.lines().items() if len(s) > 1}


def models_by_shift(view: View) -> list[Figure]:
  """One metric over the shift of a condition, before recalibration: a line per model."""
  rows = {n: (n, view.plain) for n in view.models}
  return [
    _by_shift(view, m, sets, rows, f'{c}: {m.title}', dict(condition=c, metric=m.name))
    for c, sets in lines(view).items()
    for m in _there(view, sets)
  ]


def calibrators_by_shift(view: View) -> list[Figure]:
  """The ECE of one model, a line per calibrator; `by_set` has the other scores of calibrators."""
  if len(view.calibrators) < 2:
    return []
  return [
    _by_shift(
      view, m, sets, {n: (model, n) for n in view.calibrators}, f'{c}: {m.title} of {model}',
      dict(condition=c, model=model),
    )
    for c, sets in lines(view).items() for m in _there(view, sets) if m.name == 'ece'
    for model in view.models
  ]  # fmt: skip


def _there(view: View, sets: Sequence[str]) -> list[Metric]:
  """Metrics with values on two of the sets."""
  has = lambda m, s: any(
    math.isfinite(view.value(model, s, c, m.name))
    for model in view.models
    for c in view.calibrators
  )
  return [m for m in shown(view) if sum(has(m, s) for s in sets) > 1]


def _by_shift(
  view: View, m: Metric, sets: Sequence[str], rows: Mapping[str, tuple[str, str]], title: str,
  labels: Mapping[str, str],
) -> Figure:  # fmt: skip
  """rows: name of a line -> its model and calibrator."""
  series = []
  for name, style in styles(rows).items():
    model, way = rows[name]
    points = tuple(
      Point(view.shift(s), *_estimate(view, m, (model, s, way)), label=s) for s in sets
    )
    series.append(Series(name, style, points, band=len(rows) <= BANDS))
  return Figure(title, SHIFT, axis(m, view), tuple(series), labels=labels, size=SMALL)


def _estimate(view: View, m: Metric, key: tuple[str, str, str]) -> tuple[float, float, float]:
  low, high = view.interval(*key, m.name)
  return m.scale * view.value(*key, m.name), m.scale * low, m.scale * high


def by_set(view: View) -> list[Figure]:
  """One metric of one model on every set: a mark per calibrator with its 95 % interval."""
  seen = [*dict.fromkeys(map(view.condition, view.sets))]
  known = lambda s: 2.0 if math.isnan(view.shift(s)) else view.shift(s)
  place = lambda s: (s != view.reference, seen.index(view.condition(s)), known(s))
  out = []
  for model in view.models:
    for m in shown(view):
      ways = [*view.calibrators][: 1 if m.group == 'accuracy' else None]
      has = lambda s, c, m=m, model=model: math.isfinite(view.value(model, s, c, m.name))
      sets = [s for s in sorted(view.sets, key=place) if any(has(s, c) for c in ways)]
      if not sets:
        continue
      series = []
      for way, style in styles(view.calibrators).items():
        at = [_estimate(view, m, (model, s, way)) for s in sets] if way in ways else []
        points = tuple(Point(v, k, left=a, right=b) for k, (v, a, b) in enumerate(at))
        series.append(Series(way, style, points, line=False))
      out.append(
        Figure(
          f'{m.title}, {model}', axis(m, view), None, tuple(s for s in series if s.points),
          rows=tuple(sets), labels=dict(model=model, metric=m.name), size=SMALL,
        )
      )  # fmt: skip
  return out


def guarantees(view: View) -> list[Figure]:
  """The mean loss of each guarantee's sets over the shift of a condition, before recalibration: a
  line per model, and alpha."""
  out = []
  for g in survival.promises(view):
    of, alpha = survival.entries(view, g['name']), 100 * g['alpha']
    for condition, sets in lines(view).items():
      series = [Series('alpha', DOTTED, (Point(0, alpha), Point(1, alpha)))]
      for model, style in styles(view.models).items():
        losses = {s: of[model, view.plain, s]['loss'] for s in sets if (model, view.plain, s) in of}
        points = tuple(_of_loss(view, name, e) for name, e in losses.items())
        series.append(Series(model, style, points, band=len(view.models) <= BANDS))
      axes = SHIFT, Axis('mean loss, %', 0)
      labels = dict(condition=condition, guarantee=g['name'])
      title = f'{condition}: {g["name"]}'
      out.append(Figure(title, *axes, tuple(series), labels=labels, size=SMALL))
  return [f for f in out if any(s.points for s in f.series[1:])]


def _of_loss(view: View, dataset: str, loss: Mapping[str, Any]) -> Point:
  value, low, high = (100 * number(loss[k]) for k in ('value', 'low', 'high'))
  return Point(view.shift(dataset), value, low, high, label=dataset)


def reliability(view: View) -> list[Figure]:
  """Does 80 % mean 80 %? Of each model on each set: mean confidence of each bin against the share
  that is right, a line per calibrator."""
  by_pair: dict[tuple[str, str], dict[str, Any]] = {}
  for (model, dataset, calibrator), entry in view.curves.items():
    if found := entry.get('reliability'):
      by_pair.setdefault((model, dataset), {})[calibrator] = found
  look, out = styles(view.calibrators), []
  for (model, dataset), by in by_pair.items():
    series = [Series('as it should be', DOTTED, CORNERS)]
    for name in (c for c in view.calibrators if c in by):
      percent = lambda key, of=by[name]: [None if v is None else 100 * v for v in of.get(key) or []]
      points = of_values(
        percent('confidence'), percent('frequency'), counted=by[name].get('pixels') or []
      )
      style = look[name] if len(by) <= MARKED else look[name]._replace(shape='')
      series.append(Series(name, style, tuple(p for p in points if p.counted > 0)))
    x, y = Axis('confidence, %', 0, 100), Axis('right, % of pixels', 0, 100)
    labels = dict(model=model, set=dataset)
    title = f'{model} on {dataset}'
    if any(s.points for s in series[1:]):
      out.append(Figure(title, x, y, tuple(series), counted='pixels', labels=labels, size=SMALL))
  return out


def near_borders(view: View) -> list[Figure]:
  """Where is it badly calibrated? Of each set the ECE by distance to a border of the label, a mark
  per model, before recalibration."""
  by_set: dict[str, dict[str, Any]] = {}
  for (model, dataset, calibrator), entry in view.curves.items():
    if calibrator == view.plain and entry.get('near'):
      by_set.setdefault(dataset, {})[model] = entry['near']
  look, out = styles(view.models), []
  for dataset, by in by_set.items():
    series = [Series(m, look[m], _bands(by[m]), line=False) for m in view.models if m in by]
    x, rows = Axis('ECE, %, ↓ lower is better', 0), tuple(next(iter(by.values()))['bands'])
    labels = dict(set=dataset)
    title = f'By distance to a border, {dataset}'
    out.append(Figure(title, x, None, tuple(series), rows=rows, labels=labels, size=SMALL))
  return [f for f in out if not f.empty]


def _bands(near: Mapping[str, Any]) -> tuple[Point, ...]:
  rows = zip(near['ece'], near['confidence'], near['accuracy'], near['pixels'], strict=True)
  word = lambda conf, right, n: (
    f'confidence {100 * number(conf):.1f} %, accuracy {100 * number(right):.1f} %, {n:,.0f} pixels'
  )
  return tuple(Point(100 * number(e), k, label=word(*of)) for k, (e, *of) in enumerate(rows))


def errors(view: View) -> list[Figure]:
  """Does it know when it is wrong? Of each set rejection curve and ROC, a line per model, before
  recalibration."""
  by_set: dict[str, dict[str, Any]] = {}
  for (model, dataset, calibrator), entry in view.curves.items():
    if calibrator == view.plain:
      by_set.setdefault(dataset, {})[model] = entry
  out = []
  for dataset, by in by_set.items():
    by = {m: by[m] for m in view.models if m in by}
    out.append(_rejection(view, dataset, by))
    out.append(_roc(view, dataset, by, 'misclassification', 'Finding errors', 'wrong', 'right'))
    out.append(_roc(view, dataset, by, 'unknown', 'Finding the unknown', 'unknown', 'known'))
  return [f for f in out if any(s.points for s in f.series if s.style.colour != 'muted')]


CORNERS = (Point(0, 0), Point(100, 100))


def _curve(x: Any, y: Any) -> tuple[Point, ...]:
  points = of_values(x or (), y or ())
  return thinned([Point(100 * p.x, 100 * p.y) for p in points], FINE)


def _rejection(view: View, dataset: str, by: Mapping[str, Any]) -> Figure:
  """Error of the kept pixels over the share rejected, least confident first; of a model alone also
  the best possible order of its errors."""
  series, look = [], styles(view.models)
  for model, entry in by.items():
    found, style = entry.get('rejection') or {}, look[model]._replace(shape='')
    if len(by) == 1:
      best = _curve(found.get('rejected'), found.get('best'))
      series.append(Series('best possible', DOTTED, best))
    series.append(Series(model, style, _curve(found.get('rejected'), found.get('risk'))))
  x = Axis('pixels rejected, %', 0, 100)
  y = Axis('error of the kept pixels, %, ↓ lower is better', 0)
  labels = dict(set=dataset)
  return Figure(f'Rejection, {dataset}', x, y, tuple(series), labels=labels, size=SMALL)


def _roc(
  view: View, dataset: str, by: Mapping[str, Any], kind: str, title: str, wanted: str, others: str
) -> Figure:
  """Share of `wanted` pixels flagged over the share of `others` flagged with them."""
  series, look = [Series('chance', DOTTED, CORNERS)], styles(view.models)
  for model, entry in by.items():
    found = (entry.get('roc') or {}).get(kind) or {}
    style = look[model]._replace(shape='')
    series.append(Series(model, style, _curve(found.get('fpr'), found.get('tpr'))))
  x, y = (
    Axis(f'{others} pixels flagged too, %', 0, 100),
    Axis(f'{wanted} pixels flagged, %', 0, 100),
  )
  labels = dict(set=dataset)
  return Figure(f'{title} (ROC), {dataset}', x, y, tuple(series), labels=labels, size=SMALL)


def failing(view: View) -> list[Figure]:
  """Does it know which images fail? Mean risk of the images that are kept, the surest first, over
  their share: in-domain and on the strongest shift, a line per model; of a model alone also the
  best possible order of its images."""
  out, look = [], styles(view.models)
  for dataset in dict.fromkeys((view.reference, view.strongest)):
    here = {e['model']: e for e in view.study.get('failing') or [] if e['set'] == dataset}
    by = {m: here[m] for m in view.models if m in here}
    series = [
      Series(model, look[model]._replace(shape=''), _curve(e['coverage'], e['risk']))
      for model, e in by.items()
    ]
    if len(by) == 1:
      (only,) = by.values()
      best = _curve(only['coverage'], only['best'])
      series.insert(0, Series('best possible', DOTTED, best))
    x = Axis('images kept, the surest first, %', 0, 100)
    y = Axis('mean risk of the kept images (one minus Dice), %, ↓ lower is better', 0)
    out.append(Figure(f'Images kept, {dataset}', x, y, tuple(series), size=PLOT))
  return [f for f in out if not f.empty]


def correlations(view: View) -> list[Figure]:
  """A point per model with the intervals of its score on synthetic and on real sets."""
  out = []
  for entry in view.study.get('correlations') or []:
    if not entry['models']:
      continue
    m, look = view.about(entry['measure']), styles(view.models)
    values = lambda of, m=m: [m.scale * number(of.get(k)) for k in ('value', 'low', 'high')]
    series = []
    for e in entry['models']:
      (x, left, right), (y, low, high) = (values(e[side]) for side in SIDES)
      point = Point(x, y, low, high, left, right)
      series.append(Series(e['model'], look[e['model']], (point,), line=False))
    ends = _shared(series)
    series.insert(0, Series('the same score', DOTTED, tuple(Point(v, v) for v in ends)))
    title = f'{entry["name"]}: {m.title}'
    x_axis, y_axis = (Axis(f'{m.heading}, {side}') for side in SIDES)
    out.append(Figure(title, x_axis, y_axis, tuple(series), size=PLOT))
  return out


def _shared(series: Iterable[Series]) -> tuple[float, ...]:
  """The values that both scores reach, as two ends; none where they have none in common."""
  points = [p for s in series for p in s.points]
  if not points:
    return ()
  low = max(min(p.x for p in points), min(p.y for p in points))
  high = min(max(p.x for p in points), max(p.y for p in points))
  return (low, high) if low < high else ()


def named(view: View, metric: str, value: Any) -> str:
  """'mIoU 12.3 %'"""
  if metric not in view.metrics:
    return f'{metric} {number(value):.3g}'
  m = view.metrics[metric]
  return f'{m.title} {m.text(number(value), view.places(m))}'
