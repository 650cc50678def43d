"""The chart sections of the study's page: which charts there are, and what chooses among them."""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from car_jax.reliability import charts, curves, numbers, ranks
from car_jax.reliability.page_tables import attributes, plain
from car_jax.reliability.view import View, number

KEY = ('miou', 'ece', 'auroc', 'unknown_auroc')  # one per question, for charts by shift


def select(
  axis: str, names: Iterable[str], *, chosen: str = '*', keep: str = '', label: str = ''
) -> str:
  """A choice of one name on an axis (model, set, ..) or of all; '' for a single name.

  `chosen` is the first choice, `keep` is shown whatever is chosen, `label` the text beside it.
  """
  names = [n for n in names if n != keep]
  if len(names) + bool(keep) < 2:
    return ''
  option = lambda value, text: (
    f'<option value="{escape(value, quote=True)}"{" selected" if value == chosen else ""}>'
    f'{escape(text)}</option>'
  )
  options = option('*', 'all') + ''.join(option(n, n) for n in names)
  kept = f' data-keep="{escape(keep, quote=True)}"' if keep else ''
  return (
    f'<label>{escape(label or axis)}<select data-axis="{axis}"{kept}>{options}</select></label>'
  )


def controls(*selects: str) -> str:
  inside = ''.join(selects)
  return f'<div class="controls">{inside}</div>' if inside else ''


def key(names: Iterable[str], *, line: bool = True) -> str:
  """Names beside their markers."""
  items = ''.join(
    f'<span>{charts.swatch(s, line=line)}{escape(n)}</span>'
    for n, s in charts.styles(names).items()
  )
  return f'<div class="key big">{items}</div>'


def named(view: View, metric: str, value: Any) -> str:
  """'mIoU 12.3 %'"""
  if metric not in view.metrics:
    return f'{escape(metric)} {number(value):.3g}'
  m = view.metrics[metric]
  return f'{escape(m.title)} {numbers.text(m, number(value), numbers.places(view, m))}'


def _figure(drawing: str, caption: str = '', **labels: Any) -> str:
  caption = f'<h3>{escape(caption)}</h3>' if caption else ''
  return f'<figure{attributes(**labels) if labels else ""}>{caption}{slim(drawing)}</figure>'


def _later(drawing: str, caption: str, **labels: Any) -> str:
  """A figure that the script unfolds when it is chosen, and that shows without a script too."""
  inside = f'<noscript><h3>{escape(caption)}</h3>{slim(drawing)}</noscript>'
  return f'<figure{attributes(**labels)}>{inside}</figure>'


def slim(drawing: str) -> str:
  """A drawing without what the page's style sheet says of all drawings: 2,000 of them add up."""
  for long, short in _SHORTER:
    drawing = drawing.replace(long, short)
  drawing = re.sub(r'(?<=\d)\.0(?=")', '', drawing)
  return re.sub(_FILLED, r'style="--c:\1"', drawing)


_FILLED = r'style="fill:(var\(--s\d\));stroke:\1" stroke-width="1.75"'
_SHORTER = (
  (' stroke-linecap="round"', ''),
  (' stroke-linejoin="round"', ''),
  (' font-weight="400"', ''),
  (' style="stroke:var(--grid)" stroke-width="1.0"', ' class="g"'),
  (' style="fill:var(--muted)"', ' class="m"'),
  (' xmlns="http://www.w3.org/2000/svg"', ''),
  (
    ' font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"',
    '',
  ),
)


def scatters(view: View) -> str:
  """A scatter per calibrator, on the same axes."""
  if not (view.accuracy and 'ece' in view.metrics):
    return ''
  across, up = view.metrics[view.accuracy], view.metrics['ece']
  names = [*view.calibrators]
  drawn = ''.join(
    _figure(charts.scatter(view, c, across, up), _calibrated(view, c), calibrator=c) for c in names
  )
  pick = select('calibrator', names, chosen=names[1], keep=view.plain, label='beside it') if (
    len(names) > 1
  ) else ''  # fmt: skip
  return (
    f'<p>Right is more accurate, down is better calibrated. Filled: {escape(view.reference)}; '
    f'hollow: shifted sets. The arrow leads to {escape(view.strongest or "the shifted set")}: a '
    'long arrow is a model that shift hurts, a steep one a model whose confidence it spoils. Point '
    f'at a marker for its numbers.</p>{controls(pick)}{key(view.models)}'
    f'<div class="wide">{drawn}</div>{_ranks(view)}'
  )


def _ranks(view: View) -> str:
  """Whether accuracy and calibration order the models alike, in numbers; '' for too few."""
  if not (rows := ranks.rows(view)):
    return ''
  cells = [
    ('', [*map(escape, row[:-1]), f'<td class="word">{escape(row[-1])}</td>']) for row in rows
  ]
  table = plain(ranks.HEAD, cells, label='rank correlations', words=(0, 5))
  return f'<h3>{ranks.QUESTION}</h3>{table}<p class="note">{escape(ranks.covers(view))}</p>'


def _calibrated(view: View, calibrator: str) -> str:
  return 'Before recalibration' if calibrator == view.plain else f'Recalibrated: {calibrator}'


def shifts(view: View) -> str:
  """Lines over the shift, of models and of calibrators, and bars for every set."""
  metrics = [view.metrics[m] for m in KEY if m in view.metrics and view.values(m)]
  lines = {c: s for c, s in view.lines().items() if len(s) > 1}
  if not metrics:
    return ''
  strongest = next((c for c, sets in lines.items() if view.strongest in sets), '*')
  pick = controls(
    select('model', view.models, chosen=next(iter(view.models))),
    select('calibrator', view.calibrators, chosen=view.plain, label='calibrator (of all models)'),
    select('condition', lines, chosen=strongest),
    select('metric', [m.name for m in metrics]),
  )
  return pick + (_lines(view, metrics, lines) if lines else '') + _bars(view, metrics)


def _lines(view: View, metrics: Sequence[Any], lines: dict[str, list[str]]) -> str:
  models, ways = [*view.models], [*view.calibrators]
  ours, theirs = [], []
  for condition, sets in lines.items():
    for m in metrics:
      if sum(any(_has(view, s, m.name)) for s in sets) < 2:
        continue
      place = dict(condition=condition, metric=m.name)
      ours += [
        _later(
          charts.by_shift(view, m, sets, charts.rows_of(view, models, way)),
          f'{condition}, {_calibrated(view, way).lower()}', calibrator=way, **place,
        )
        for way in ways
      ]  # fmt: skip
      # Accuracy is not drawn by calibrator: a temperature changes no prediction.
      theirs += [
        _later(
          charts.by_shift(view, m, sets, charts.rows_of(view, ways, model)),
          f'{condition}, {model}', model=model, **place,
        )
        for model in models
        if len(ways) > 1 and m.group != 'accuracy'
      ]  # fmt: skip
  out = (
    '<h3>Models compared</h3><p class="note">Bands are 95 % intervals. All charts of a metric have '
    f'the same axis.</p>{key(models)}<div class="plots">{"".join(ours)}</div>'
  )
  if theirs:
    out += (
      '<h3 style="margin-top:28px">Calibrators compared, one model</h3>'
      f'{key(ways)}<div class="plots">{"".join(theirs)}</div>'
    )
  return out


def _has(view: View, dataset: str, metric: str) -> list[bool]:
  return [
    math.isfinite(view.value(m, dataset, c, metric)) for m in view.models for c in view.calibrators
  ]


def _bars(view: View, metrics: Sequence[Any]) -> str:
  ways, drawn = [*view.calibrators], ''
  for model in view.models:
    for m in metrics:
      shown = ways[:1] if m.group == 'accuracy' else ways
      if any(math.isfinite(view.value(model, s, c, m.name)) for s in view.sets for c in shown):
        labels = dict(model=model, metric=m.name)
        drawn += _later(charts.bars(view, model, m, shown), f'{m.title}, {model}', **labels)
  return (
    '<h3 style="margin-top:28px">Every set, one model</h3><p class="note">Bars with 95 % '
    f'intervals; accuracy before recalibration.</p>{key(ways, line=False)}'
    f'<div class="plots">{drawn}</div>'
  )


def diagrams(view: View) -> str:
  """Per model and set: reliability diagrams, rejection curves, ROC."""
  by_pair: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
  for (model, dataset, calibrator), entry in view.curves.items():
    by_pair.setdefault((model, dataset), {})[calibrator] = entry
  if not by_pair:
    return ''
  model = next(iter(by_pair))[0]
  other = next((c for c in view.calibrators if c != view.plain), '*')
  pick = controls(
    select('model', view.models, chosen=model),
    select('set', view.sets, chosen=view.reference),
    select('set', view.sets, chosen=view.strongest or view.reference, label='second set'),
    select('calibrator', view.calibrators, chosen=other, keep=view.plain),
  )
  blocks = ''.join(_block(view, *where, by) for where, by in by_pair.items())
  return (
    '<p>Reliability diagrams: on the dotted diagonal a pixel called 80 % sure is right in 80 % of '
    'the cases; below it the model promises too much. The bars count pixels on a logarithmic '
    'scale: a point far off matters little where few pixels are. Rejection curves: the closer to '
    'the best possible order (thick grey) and the further below random (dotted), the better. ROC: '
    'the closer to the upper left corner, the better; dotted is chance.</p>'
    f'{pick}{key(view.calibrators)}<div class="pairs">{blocks}</div>'
  )


def _block(view: View, model: str, dataset: str, by: dict[str, dict[str, Any]]) -> str:
  look = charts.styles(view.calibrators)
  by = {c: by[c] for c in view.calibrators if c in by}
  panels = ''.join(
    _figure(curves.reliability(e['reliability'], look[c]), _calibrated(view, c), calibrator=c)
    for c, e in by.items()
    if e.get('reliability')
  )
  of = lambda name: {look[c]: e[name] for c, e in by.items() if e.get(name)}
  roc = lambda kind: {
    look[c]: e['roc'][kind] for c, e in by.items() if (e.get('roc') or {}).get(kind)
  }
  plots = []
  if rejected := of('rejection'):
    plots.append(_figure(curves.rejection(rejected), 'Rejection curve'))
  if wrong := roc('misclassification'):
    plots.append(_figure(curves.roc(wrong, 'wrong', 'right'), 'Finding errors (ROC)'))
  if unknown := roc('unknown'):
    plots.append(_figure(curves.roc(unknown, 'unknown', 'known'), 'Finding the unknown (ROC)'))
  role = view.sets[dataset].get('role') if dataset in view.sets else ''
  return (
    f'<div class="pair"{attributes(model=model, set=dataset)}><noscript>'
    f'<h3>{escape(model)} on {escape(dataset)} <span class="tag">{escape(str(role or ""))}</span>'
    f'</h3><div class="panels">{panels}</div><div class="plots">{"".join(plots)}</div>'
    '</noscript></div>'
  )
