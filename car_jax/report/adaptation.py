"""The page of the adaptation study, its figures and its table of classes.

Of the content of results.json, see studies/adaptation.py. Letters: C classes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.report import rendering
from car_jax.report.figure import Axis, Figure, Point, Series, of_values, styles
from car_jax.report.page import Tile, render
from car_jax.report.table import Cell, Table, table

TITLES = {'source': 'source-only', 'abn': 'ABN', 'sac': 'SAC', 'oracle': 'oracle'}
COLUMNS = {
  'teacher sees': 'A window on a target image, zoomed and perhaps flipped.',
  "teacher's map": 'The class that the teacher finds likeliest in this view alone.',
  'pseudo labels': 'What is left once the views are combined and the unsure pixels dropped (grey).',
  'student sees': 'The same view with photometric noise; the student learns the labels on it.',
  'truth': 'For the eye only; nothing is learnt from it. Grey: unlabelled, or beyond the image.',
}
# Key in the pseudo labels' numbers, name of the axis, and what a value is multiplied by.
CURVES = (
  ('kept', 'pixels with a pseudo label, %', 100),
  ('agreement', 'of these the student says too, %', 100),
  ('distance', 'distance of teacher and student', 1),
)
NAMED = 3  # classes that gained or lost most
SHOWN = 5e-4  # a smaller change is 0.0 points
Content = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class About:
  """What the page shows beside the numbers. palette [C, 3]; configs: by the models' names."""

  split: str
  images: int
  palette: Sequence[Any]
  command: str
  configs: Mapping[str, Mapping[str, Any]]
  created: str
  versions: Mapping[str, str]


def page(results: Content, about: About, views: bytes = b'') -> str:
  """The whole document. views: PNG of what SAC learns from, where there is a SAC run."""
  target = next(iter(about.configs.values()))['data']['name']
  runs = results['pseudo_labels']
  key = {n: rendering.rgb(c) for n, c in zip(results['classes'], about.palette, strict=False)}
  return render(
    'adaptation.html.j2',
    kicker='Adaptation study',
    title=f'Adaptation to {target}',
    findings=findings(results),
    facts=_facts(results, about),
    classes=classes(results, about.palette),
    per_class=per_class(results),
    curves=curves(results),
    steps=', '.join(f'{step:,}' for step in sorted({run['step'][-1] for run in runs})),
    label_classes=_label_classes(results, about.palette) if runs else None,
    views=Tile(views, '', f'a row for each view: {", ".join(COLUMNS)}') if views else None,
    columns=COLUMNS,
    key=key | {'no label': rendering.rgb(rendering.VOID)},
    about=about,
    configs={f'Configuration of {TITLES[n]}': c for n, c in about.configs.items()},
  )


def percent(values: Sequence[float | None], signed: bool = False) -> str:
  """'83.3 ± 23.6', with the standard deviation of a sample; '–' where nothing is known."""
  known = [100 * v for v in values if v is not None]
  if not known:
    return '–'
  spread = f' ± {np.std(known, ddof=1):.1f}' if len(known) > 1 else ''
  mean = round(np.mean(known), 1) or 0.0  # no negative zero
  return f'{mean:{"+" if signed and mean else ""}.1f}{spread}'.replace('-', '−')


def findings(results: Content) -> list[str]:
  """The result in sentences: each adapted model's gain, and the classes that it moved most."""
  gain, models = results['gain'], results['models']
  lines = []
  if 'sac' in gain:
    more = ''
    title = next(iter(models['sac']['miou']))
    if 'abn' in models and (added := differences(models['sac'], models['abn'], title)):
      more = f' and {_apart(added)} ABN'
    lines.append(f'SAC is {_apart(gain["sac"])} source-only ({_over(gain["sac"])}){more}.')
  if 'abn' in gain:
    lines.append(f'ABN is {_apart(gain["abn"])} source-only ({_over(gain["abn"])}).')
  for name in ('sac', 'abn'):
    if name in gain:
      lines.append(_moved(results, name))
  return lines + unpaired(models) + list(results.get('remarks') or [])


def pairs(model: Mapping[str, Any], base: Mapping[str, Any]) -> list[tuple[int, int]]:
  """The places, in both models, of the runs whose name both have."""
  places = {run: k for k, run in enumerate(base['runs'])}
  return [(k, places[run]) for k, run in enumerate(model['runs']) if run in places]


def differences(model: Mapping[str, Any], base: Mapping[str, Any], title: str) -> list[float]:
  """How far each of the model's runs is above the base's of its name, in the mean so titled."""
  a, b = model['miou'][title], base['miou'][title]
  return [a[i] - b[j] for i, j in pairs(model, base)]


def unpaired(models: Content) -> list[str]:
  """A sentence on the adapted and source-only runs that no gain counts, if there are any."""
  adapted = [name for name in ('abn', 'sac') if name in models]
  if 'source' not in models or not adapted:
    return []
  base = models['source']['runs']
  alone = [('source', r) for r in base if all(r not in models[name]['runs'] for name in adapted)]
  alone += [(name, r) for name in adapted for r in models[name]['runs'] if r not in base]
  paths = ', '.join(str(pathlib.PurePosixPath(*run)) for run in alone)
  return [f'In no gain, since no run of the same seed is there: {paths}.'] if alone else []


def class_gains(results: Content, name: str) -> list[list[float]]:
  """By class, how far each adapted run's IoU is above that of the source-only run of its name."""
  model, base = results['models'][name], results['models']['source']
  gains: list[list[float]] = [[] for _ in results['classes']]
  for i, j in pairs(model, base):
    for k, (a, b) in enumerate(zip(model['iou'][i], base['iou'][j], strict=True)):
      if a is not None and b is not None:
        gains[k].append(a - b)
  return gains


def _miou(model: Mapping[str, Any]) -> list[float]:
  return next(iter(model['miou'].values()))


def _apart(values: Sequence[float]) -> str:
  """'6.8 ± 1.4 points of mIoU above'"""
  side = 'above' if np.mean(values) >= 0 else 'below'
  sign = 1 if side == 'above' else -1
  return f'{percent([sign * v for v in values])} points of mIoU {side}'


def _over(values: Sequence[float]) -> str:
  if len(values) == 1:
    return 'one seed'
  better = sum(v > 0 for v in values)
  return f'mean ± standard deviation over {len(values)} seeds, better with {better} of them'


def _moved(results: Content, name: str) -> str:
  """The classes with the largest gains and losses, in points of IoU."""
  gains = dict(zip(results['classes'], class_gains(results, name), strict=True))
  order = sorted((c for c, v in gains.items() if v), key=lambda c: -np.mean(gains[c]))
  words = lambda classes: ', '.join(f'{c} ({percent(gains[c], signed=True)})' for c in classes)
  up = words([c for c in order if np.mean(gains[c]) > SHOWN][:NAMED]) or 'none'
  down = words([c for c in order[::-1] if np.mean(gains[c]) < -SHOWN][:NAMED]) or 'none'
  return f'Classes that {TITLES[name]} moved most, in points of IoU. Gained: {up}. Lost: {down}.'


def _facts(results: Content, about: About) -> dict[str, Any]:
  # The oracle's source is the target itself.
  data = [config['data'] for name, config in about.configs.items() if name != 'oracle']
  sources = sorted({d['source']['name'] for d in data if d.get('source')})
  facts: dict[str, Any] = {'labels from': ', '.join(sources)}
  for name, model in results['models'].items():
    runs = len(model['iou'])
    facts[f'mIoU of {TITLES[name]}, %'] = (percent(_miou(model)), f'{runs} run{"s" * (runs > 1)}')
  facts['scored'] = (f'{about.images:,} images', about.split)
  facts['made'] = about.created
  return facts


def classes(results: Content, palette: Sequence[Any] = ()) -> Table:
  """IoU of each class and its means in per cent, mean ± standard deviation over runs, and gains."""
  models, adapted = results['models'], [*results['gain']]
  gains = {n: class_gains(results, n) for n in adapted}
  rows: list[list[Cell]] = []
  for k, name in enumerate(results['classes']):
    colour = rendering.rgb(palette[k]) if k < len(palette) else ''
    cells = [Cell(percent([v[k] for v in m['iou']])) for m in models.values()]
    cells += [Cell(percent(gains[n][k], signed=True)) for n in adapted]
    rows.append([Cell(name, colour=colour), *cells])
  for title in next(iter(models.values()))['miou']:
    texts = [title, *(percent(m['miou'][title]) for m in models.values())]
    above = [differences(models[n], models['source'], title) for n in adapted]
    texts += [percent(values, signed=True) for values in above]
    rows.append([Cell(text, strong=True) for text in texts])
  right = ['pixels right', *(percent(m['accuracy']) for m in models.values())]
  rows.append([Cell(text) for text in (*right, *('' for _ in adapted))])
  head = ['class', *(TITLES[n] for n in models), *(f'{TITLES[n]} − source-only' for n in adapted)]
  return table('IoU of each class, per cent', head, rows)


def _label_classes(results: Content, palette: Sequence[Any]) -> Table:
  """What each class's pseudo labels and thresholds are in the end."""
  runs, rows = results['pseudo_labels'], []
  for k, name in enumerate(results['classes']):
    parts = [[run[part][k] for run in runs] for part in ('class_kept', 'class_threshold')]
    known = [[v for v in values if v is not None] for values in parts]
    cells = [
      Cell(percent(values), heat=float(np.mean(seen)) if seen else 0.0)
      for values, seen in zip(parts, known, strict=True)
    ]
    rows.append([Cell(name, colour=rendering.rgb(palette[k])), *cells])
  return table('pseudo labels of each class', ['class', 'labels kept', 'threshold'], rows)


def per_class(results: Content) -> Figure:
  """Per class a mark for each model at its mean IoU, on a line from the least to the most."""
  models = results['models']
  title = next(iter(next(iter(models.values()))['miou']))
  rows = (*results['classes'], title)
  look, series = styles(models), []
  for name, model in models.items():
    by_row = [*zip(*model['iou'], strict=True), model['miou'][title]]
    points = []
    for k, values in enumerate(by_row):
      known = [100 * v for v in values if v is not None]
      if known:
        points.append(Point(float(np.mean(known)), k, left=min(known), right=max(known)))
    series.append(Series(TITLES[name], look[name], tuple(points), line=False))
  return Figure(
    'IoU of each class on the target', Axis('IoU on the target, %', 0, 100), None, tuple(series),
    rows=rows, caption='A mark at the mean over runs, a line from the least to the most.',
  )  # fmt: skip


def curves(results: Content) -> list[Figure]:
  """A figure for each of CURVES over the steps, a line for each SAC run that has any."""
  runs = results['pseudo_labels']
  # in the colours after those of the models
  look = styles([*results['models'], *(run['run'] for run in runs)])
  out = []
  for key, name, scale in CURVES if runs else ():
    series = tuple(
      Series(
        run['run'], look[run['run']],
        of_values(run['step'], [None if v is None else scale * v for v in run[key]]),
      )
      for run in runs
    )  # fmt: skip
    last = max(run['step'][-1] for run in runs)
    out.append(Figure(name, Axis('step', 0, last), Axis(name), series, size=(340, 260)))
  return out
