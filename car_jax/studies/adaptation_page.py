"""The adaptation study as one HTML page: no script, no network, pictures and charts inside.

Letters: C classes.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from car_jax.evaluate import html, pictures, report, tables
from car_jax.reliability import charts, page_tables
from car_jax.reliability.page_style import CSS
from car_jax.studies import adaptation_plots
from car_jax.studies.adaptation_plots import COLUMNS, TITLES

NAMED = 3  # classes that gained or lost most
SHOWN = 5e-4  # a smaller change is 0.0 points


@dataclasses.dataclass(frozen=True)
class About:
  """What the page shows beside the numbers. palette [C, 3]; configs: by the models' names."""

  split: str
  images: int
  palette: Sequence[Any]
  command: str
  configs: Mapping[str, Mapping[str, Any]]
  created: str = dataclasses.field(default_factory=lambda: time.strftime('%Y-%m-%d %H:%M'))
  versions: Mapping[str, str] = dataclasses.field(default_factory=report.versions)


def page(results: Mapping[str, Any], about: About, views: bytes = b'') -> str:
  """The whole document. views: PNG of what SAC learns from, where there is a SAC run."""
  sections = {
    'classes': ('IoU of each class', _classes(results, about)),
    'labels': ('How the pseudo labels went', _labels(results, about)),
    'views': ('What SAC learns from', _views(results, about, views)),
    'reproduce': ('How to reproduce', _reproduce(about)),
  }
  target = next(iter(about.configs.values()))['data']['name']
  head = html.findings(findings(results)) + _facts(results, about)
  return html.document('Adaptation study', f'Adaptation to {target}', head, sections, css=CSS)


def percent(values: Sequence[float | None], signed: bool = False) -> str:
  """'83.3 ± 23.6', with the standard deviation of a sample; '–' where nothing is known."""
  known = [100 * v for v in values if v is not None]
  if not known:
    return '–'
  spread = f' ± {np.std(known, ddof=1):.1f}' if len(known) > 1 else ''
  mean = round(np.mean(known), 1) or 0.0  # no negative zero
  return f'{mean:{"+" if signed and mean else ""}.1f}{spread}'.replace('-', '−')


def findings(results: Mapping[str, Any]) -> list[str]:
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


def unpaired(models: Mapping[str, Any]) -> list[str]:
  """A sentence on the adapted and source-only runs that no gain counts, if there are any."""
  adapted = [name for name in ('abn', 'sac') if name in models]
  if 'source' not in models or not adapted:
    return []
  base = models['source']['runs']
  alone = [('source', r) for r in base if all(r not in models[name]['runs'] for name in adapted)]
  alone += [(name, r) for name in adapted for r in models[name]['runs'] if r not in base]
  paths = ', '.join(str(pathlib.PurePosixPath(*run)) for run in alone)
  return [f'In no gain, since no run of the same seed is there: {paths}.'] if alone else []


def class_gains(results: Mapping[str, Any], name: str) -> list[list[float]]:
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


def _moved(results: Mapping[str, Any], name: str) -> str:
  """The classes with the largest gains and losses, in points of IoU."""
  gains = dict(zip(results['classes'], class_gains(results, name), strict=True))
  order = sorted((c for c, v in gains.items() if v), key=lambda c: -np.mean(gains[c]))
  words = lambda classes: ', '.join(f'{c} ({percent(gains[c], signed=True)})' for c in classes)
  up = words([c for c in order if np.mean(gains[c]) > SHOWN][:NAMED]) or 'none'
  down = words([c for c in order[::-1] if np.mean(gains[c]) < -SHOWN][:NAMED]) or 'none'
  return f'Classes that {TITLES[name]} moved most, in points of IoU. Gained: {up}. Lost: {down}.'


def _facts(results: Mapping[str, Any], about: About) -> str:
  # The oracle's source is the target itself.
  data = [config['data'] for name, config in about.configs.items() if name != 'oracle']
  sources = sorted({d['source']['name'] for d in data if d.get('source')})
  facts = {'labels from': escape(', '.join(sources))}
  for name, model in results['models'].items():
    runs = len(model['iou'])
    facts[f'mIoU of {TITLES[name]}, %'] = (
      f'{percent(_miou(model))} <small>{runs} run{"s" * (runs > 1)}</small>'
    )
  facts['scored'] = f'{about.images:,} images <small>{escape(about.split)}</small>'
  facts['made'] = escape(about.created)
  return html.facts(facts)


def _classes(results: Mapping[str, Any], about: About) -> str:
  models, adapted = results['models'], [*results['gain']]
  head = [*(TITLES[n] for n in models), *(f'{TITLES[n]} − source-only' for n in adapted)]
  gains = {n: class_gains(results, n) for n in adapted}
  rows = []
  for k, name in enumerate(results['classes']):
    cells = [percent([v[k] for v in m['iou']]) for m in models.values()]
    cells += [percent(gains[n][k], signed=True) for n in adapted]
    rows.append(('', [_named(about, k, name), *cells]))
  for title in next(iter(models.values()))['miou']:
    means = {n: m['miou'][title] for n, m in models.items()}
    above = [differences(models[n], models['source'], title) for n in adapted]
    cells = [percent(values) for values in means.values()]
    cells += [percent(values, signed=True) for values in above]
    rows.append(('', [f'<strong>{c}</strong>' for c in (escape(title), *cells)]))
  table = page_tables.plain(['class', *head], rows, label='IoU of each class, per cent')
  return (
    '<p>IoU on the target in per cent, mean ± standard deviation over runs. A gain is taken '
    'between runs of the same seed, then averaged. A dash: the class is neither '
    f'there nor said.</p><figure>{adaptation_plots.per_class(results)}<figcaption>'
    'A dot at the mean over runs, a line from the least to the most.</figcaption></figure>' + table
  )


def _colour(about: About, k: int) -> str:
  return f'rgb({",".join(str(int(v)) for v in about.palette[k])})'


def _named(about: About, k: int, name: str) -> str:
  return f'<span class="swatch" style="background:{_colour(about, k)}"></span>{escape(name)}'


def _labels(results: Mapping[str, Any], about: About) -> str:
  runs = results['pseudo_labels']
  if not runs:
    return ''
  key = ''.join(
    f'<span>{charts.swatch(style)}{escape(name)}</span>'
    for name, style in adaptation_plots.run_styles(results).items()
  )
  drawn = ''.join(f'<figure>{d}</figure>' for d in adaptation_plots.curves(results))
  steps = ', '.join(f'{step:,}' for step in sorted({run['step'][-1] for run in runs}))
  rows = []
  for k, name in enumerate(results['classes']):
    cells = [_heat([run[part][k] for run in runs]) for part in ('class_kept', 'class_threshold')]
    rows.append(('', [_named(about, k, name), *cells]))
  head = ['class', 'labels kept', 'threshold']
  return (
    '<p>A line for each SAC run, each point a mean over the steps since the one before. Labels '
    'that grow in number while student and teacher agree say that training is steady, not that '
    f'the labels are right.</p><div class="key big">{key}</div><div class="plots">{drawn}</div>'
    '<p class="note">The upright axes need not start at 0. The distance adds up the L2 norms of '
    "each array's difference.</p>"
    f'<h3>Class by class, at step {steps}</h3><p class="note">In per cent, mean ± standard '
    'deviation over runs. Labels kept: of the pixels which the teacher gives to the class, those '
    'that pass its threshold. A step in which the teacher never says the class counts as 0.</p>'
    + page_tables.plain(head, rows, label='pseudo labels of each class')
  )


def _heat(values: Sequence[float | None]) -> str:
  known = [v for v in values if v is not None]
  depth = 45 * float(np.mean(known)) if known else 0
  return f'<td class="heat" style="--h:{depth:.0f}%">{percent(values)}</td>'


def _views(results: Mapping[str, Any], about: About, views: bytes) -> str:
  if not views:
    return ''
  terms = ''.join(f'<dt>{escape(t)}</dt><dd>{escape(d)}</dd>' for t, d in COLUMNS.items())
  items = ''.join(
    f'<span><i class="box" style="background:{_colour(about, k)}"></i>{escape(name)}</span>'
    for k, name in enumerate(results['classes'])
  )
  nothing = pictures.class_map(np.full((1, 1), -1), np.zeros((0, 3)))[0, 0]
  grey = f'rgb({",".join(str(v) for v in nothing)})'
  items += f'<span><i class="box" style="background:{grey}"></i>no label</span>'
  return (
    '<p>Training images of the target as the first SAC run sees them, labelled by its teacher as '
    'it was left. A row for each view; a wider gap parts the images.</p>'
    f'<div class="key">{items}</div>'
    '<div class="scroll" tabindex="0" role="group" aria-label="views">'
    f'<img src="{pictures.data_uri(views)}" width="1040" alt="a row for each view: '
    f'{escape(", ".join(COLUMNS), quote=True)}"></div><dl class="terms">{terms}</dl>'
  )


def _reproduce(about: About) -> str:
  configs = ''.join(
    f'<details><summary>Configuration of {TITLES[name]}</summary>'
    f'<pre>{escape(json.dumps(tables.plain(config), indent=2))}</pre></details>'
    for name, config in about.configs.items()
  )
  return (
    f'<pre>{escape(about.command)}</pre>{html.versions(about.versions)}'
    '<p class="note">What the first run of each model was trained with by <code>train.py</code>; '
    f'its folder has the same in <code>config.json</code>.</p>{configs}'
    '<p class="note">Beside this page: <code>results.json</code> (all numbers), '
    '<code>tables.md</code>, <code>classes.svg</code>, <code>views.png</code> with a SAC run.</p>'
  )
