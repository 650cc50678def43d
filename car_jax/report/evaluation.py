"""The report on one data set scored against its readers: its page, Markdown and terminal table.

Of the content of results.json, see evaluate/report.py.
"""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

from car_jax.evaluate import folders
from car_jax.metrics.base import BETTER
from car_jax.report import figure as figures_of
from car_jax.report.figure import DOTTED, TICK, Axis, Figure, Point, Series, Style, of_values
from car_jax.report.page import Card, render
from car_jax.report.table import WIDTH, Cell, Column, Row, Table, block, number, prose, table

Content = Mapping[str, Any]
SOURCES = {'mean': 'mean of the samples', 'own': 'own probabilities'}


@dataclasses.dataclass(frozen=True)
class Gallery:
  """legend: colours of readers and classes, of the entropy; see evaluate/tiles.py."""

  legend: Mapping[str, Any]
  cases: list[Card]
  diversity: list[Card]


def page(content: Content, gallery: Gallery) -> str:
  """The whole document."""
  kinds = [[*group] for _, group in itertools.groupby(content['metrics'], lambda m: m['kind'])]
  data, several = content['data'], len(content['data']['classes']) > 2
  return render(
    'evaluation.html.j2',
    kicker='Evaluation report',
    title=content['title'],
    content=content,
    findings=[*findings(content), *content['remarks']],
    facts=_facts(content),
    scores=scores(content, ' – '),
    metrics=[_explained(group) for group in kinds],
    figures=_by_section(figures(content)),
    styles=look(content),
    gallery=gallery,
    what='the likeliest class' if several else data['classes'][1],
    readers='that agree' if several else 'that mark it',
    cite=' '.join(str(part) for part in (data['citation'], data['licence']) if part),
  )


def look(content: Content) -> dict[str, Style]:
  names = [s['name'] for s in content['subjects']]
  return figures_of.styles(names, floor=content['floor'])


def _facts(content: Content) -> dict[str, Any]:
  data, units = content['data'], content['units']
  people = '' if units['name'] == 'images' else f'of {units["count"]:,} {units["name"]}'
  return {
    'data set': (data['name'], data['split']),
    'images': (f'{content["images"]:,}', people),
    'readers per image': f'up to {data["readers"]}',
    'classes': f'{len(data["classes"])}',
    'samples per image': f'{content["samples"]}',
    'made': content['created'],
  }


def _explained(group: list[Mapping[str, Any]]) -> dict[str, Any]:
  """One entry for each kind of score, with the exact names of those in the table."""
  first = group[0]
  about = ' '.join(dict.fromkeys([first['explanation'], *(m['more'] for m in group)])).strip()
  title = f'{", ".join(m["name"] for m in group)}: {first["title"]}'
  exact = [m['convention'] for m in group]
  return dict(title=title, better=first['better'], about=about, exact=exact)


def _value(entry: Any) -> float:
  return float('nan') if entry is None else float(entry)


def _places(content: Content, metric: str) -> int:
  """Decimals that show a column: a small score such as an ECE gets one more."""
  values = [s['scores'][metric]['mean'] for s in content['subjects']]
  size = max([abs(v) for v in values if v is not None], default=1.0)
  return 3 if size >= 0.1 else 4


def _ends(entry: Mapping[str, Any], places: int, joint: str) -> str:
  """'0.110 to 0.135', or nothing for an interval without ends, such as that of one image."""
  if entry['low'] is None or entry['high'] is None:
    return ''
  return f'{number(entry["low"], places)}{joint}{number(entry["high"], places)}'


def best(content: Content, metric: Mapping[str, Any]) -> set[str]:
  """Subjects with the best score (all of them in a tie); the readers' floor does not compete."""
  values = {s['name']: s['scores'][metric['name']]['mean'] for s in content['subjects']}
  floor = values.pop(content['floor'], None)
  values = {s: v for s, v in values.items() if v is not None}
  if metric['better'] == 'match' and floor is None:
    return set()
  rank = {'low': lambda v: v, 'high': lambda v: -v, 'match': lambda v: abs(v - floor)}
  ranks = {s: rank[metric['better']](v) for s, v in values.items()}
  return {s for s, r in ranks.items() if r == min(ranks.values())} if len(ranks) > 1 else set()


def scores(content: Content, joint: str = ' to ') -> Table:
  """Subjects by metrics with 95 % intervals."""
  styles, rows = look(content), []
  metrics = content['metrics']
  places = {m['name']: _places(content, m['name']) for m in metrics}
  tops = {m['name']: best(content, m) for m in metrics}
  for s in content['subjects']:
    name = s['name']
    cells = [Cell(name, s['what'], colour=styles[name].colour)]
    for m in metrics:
      entry, digits = s['scores'][m['name']], places[m['name']]
      skipped = f'{entry["skipped"]:,} images skipped' if entry['skipped'] else ''
      if entry['mean'] is None:
        cells.append(Cell('–', entry['left_out']))
        continue
      note = '; '.join(filter(None, [_ends(entry, digits, joint), skipped]))
      top = name in tops[m['name']]
      cells.append(Cell(number(entry['mean'], digits), note, top))
    rows.append(Row(tuple(cells), floor=name == content['floor']))
  columns = [Column('subject', words=True)]
  for m in metrics:
    exact = ', '.join(m['convention'].partition('[')[2].rstrip(']').replace(', ', ',').split(','))
    tip = f'{m["title"]}. {m["explanation"]} {m["more"]}'.strip()
    columns.append(Column(m['name'], better=m['better'], note=exact, tip=tip, key=m['name']))
  return Table('scores', tuple(columns), tuple(rows), sortable=True)


def findings(content: Content) -> list[str]:
  """The main score in sentences: the first subject, against each other one, and the floor."""
  main = content['main']
  if not main:
    return []
  first, *others = content['subjects']
  entry, places = first['scores'][main], _places(content, main)
  span = _ends(entry, places, ' to ')
  few = f'no interval: fewer than two {content["units"]["name"]} with this score'
  sure = f'95 % interval {span}' if span else few
  lines = [f'{first["name"]}: {main} {number(entry["mean"], places)} ({sure}).']
  gaps = {d['minus']: d for d in content['differences'] if d['metric'] == main}
  for other in (s['name'] for s in others):
    gap = gaps.get(other)
    if gap is None or gap['low'] is None:
      continue
    size = number(abs(gap['mean']), places)
    if gap['low'] <= 0 <= gap['high']:
      lines.append(f'No clear difference to {other}: the interval of the difference holds 0.')
    elif other == content['floor']:
      word = 'above' if gap['mean'] > 0 else 'below'
      lines.append(f"{size} {word} the readers' own floor.")
    else:
      word = 'Better' if gap['mean'] < 0 else 'Worse'
      near, far = sorted((abs(gap['low']), abs(gap['high'])))
      span = f'{number(near, places)} to {number(far, places)}'
      lines.append(f'{word} than {other} by {size} ({span}, on the same images).')
  return lines + content['comparison']


# --- figures


def figures(content: Content) -> dict[str, Figure]:
  """By the name of their file: what the page and the Markdown show."""
  out: dict[str, Figure] = {}
  if content['main']:
    out |= {'scores.svg': _intervals(content), 'per-image.svg': _histogram(content)}
    if any(s['distances'].get('d_ys') is not None for s in content['subjects']):
      out |= {'distances.svg': _distances(content), 'samples.svg': _by_samples(content)}
  for s in content['subjects']:
    if s['reliability'].get('mean'):
      out[f'reliability-{folders.slug(s["name"])}.svg'] = _reliability(content, s)
  if content['flips']:
    out |= {'flips.svg': _flip_rates(content), 'names.svg': _flip_names(content)}
    out['modes.svg'] = _modes(content)
  return {k: f for k, f in out.items() if not f.empty}


def _by_section(drawn: Mapping[str, Figure]) -> dict[str, list[Figure]]:
  flips = ('flips.svg', 'names.svg', 'modes.svg')
  section = lambda name: (
    'flips' if name in flips else 'reliability' if name.startswith('rel') else 'main'
  )
  out: dict[str, list[Figure]] = dict(main=[], reliability=[], flips=[])
  for name, drawing in drawn.items():
    out[section(name)].append(drawing)
  return out


def _intervals(content: Content) -> Figure:
  main, styles, series = content['main'], look(content), []
  shown = [s for s in content['subjects'] if s['scores'][main]['mean'] is not None]
  for k, s in enumerate(shown):
    entry = s['scores'][main]
    point = Point(entry['mean'], k, left=_value(entry['low']), right=_value(entry['high']))
    series.append(Series(s['name'], styles[s['name']], (point,)))
  floor = [s['scores'][main]['mean'] for s in shown if s['name'] == content['floor']]
  everywhere = tuple(Point(v, k) for v in floor for k in range(len(shown)))
  series.insert(0, Series("readers' floor", Style('muted', 'tick'), everywhere))
  caption = (
    'Each dot is the mean over all images, its bar the 95 % interval for another draw of images. '
    'Intervals that overlap a little can still hide a clear difference, since all subjects see the '
    'same images: the sentences at the top use that.'
  )
  return Figure(
    'How good, and how sure is it?',
    Axis(_convention(content, main)),
    None,
    tuple(s for s in series if s.points),
    rows=tuple(s['name'] for s in shown),
    caption=caption + (" The upright lines are the readers' floor." if floor else ''),
    legend=False,
  )


def _convention(content: Content, name: str) -> str:
  return next(m['convention'] for m in content['metrics'] if m['name'] == name)


def _histogram(content: Content) -> Figure:
  styles, found = look(content), content['histograms']
  names = [*found['counts']]
  spans = [*itertools.pairwise(found['edges'])]
  series = []
  for k, name in enumerate(names):
    points = tuple(
      Point((a + b) / 2, k, left=a, right=b, counted=float(n))
      for (a, b), n in zip(spans, found['counts'][name], strict=True)
      if n
    )
    series.append(Series(name, styles[name], points))
  medians = tuple(Point(found['medians'][name], k) for k, name in enumerate(names))
  series.append(Series('median', TICK, medians))
  return Figure(
    'Is it good everywhere?',
    Axis(f'{content["main"]} of an image', found['edges'][0], found['edges'][-1]),
    None,
    tuple(series),
    rows=tuple(names),
    counted='images',
    legend=False,
    caption='One band per subject: how many images have which score, each band scaled to its own '
    'highest bar; the line marks the median. Look for a long tail to the right (images that fail) '
    'and for a second hump.',
  )


PARTS = {'d_ys': 'sample to reader', 'd_ss': 'sample to sample', 'd_yy': 'reader to reader'}


def _distances(content: Content) -> Figure:
  shown = [s for s in content['subjects'] if s['distances'].get('d_ys') is not None]
  looks = (Style('s0', 'circle'), Style('s1', 'diamond'), TICK)
  series = [
    Series(
      name, style,
      tuple(Point(_value(s['distances'].get(part)), k) for k, s in enumerate(shown)), line=False,
    )
    for (part, name), style in zip(PARTS.items(), looks, strict=True)
  ]  # fmt: skip
  return Figure(
    'Do samples disagree as much as readers do?',
    Axis('mean distance, 1 − IoU', low=0),
    None,
    tuple(series),
    rows=tuple(s['name'] for s in shown),
    caption='The energy distance is made of these three. Samples that cannot be told from readers '
    'have all marks together. A diamond left of the bar means too little variety, right of it too '
    'much; a dot far to the right means masks that fit no reader.',
  )


def _by_samples(content: Content) -> Figure:
  styles, series = look(content), []
  for estimator in ('v', 'u'):
    for s in content['subjects']:
      found = s['ged_by_samples']
      if found.get(estimator) is not None:
        own = estimator == 'u'
        style = styles[s['name']]._replace(dash='2 5' if own else '', hollow=own)
        points = of_values(found['n'], found[estimator])
        series.append(Series(f'{s["name"]} ({estimator})', style, points))
  counts = tuple(content['subjects'][0]['ged_by_samples']['n'])
  return Figure(
    'Does the number of samples matter?',
    Axis('samples per image', counts[0], counts[-1], counts, log=True),
    Axis('GED'),
    tuple(series),
    caption='The published estimator (v) counts the zero distance of each sample to itself, so it '
    'falls as samples are added, whatever the model. The other (u) leaves self pairs out and has '
    'the same expectation for every number. Compare at equal N, or by u.',
  )


def _reliability(content: Content, subject: Mapping[str, Any]) -> Figure:
  series = [Series('as it should be', DOTTED, (Point(0, 0), Point(1, 1)))]
  style, errors = look(content)[subject['name']], []
  for source, name in SOURCES.items():
    if not (found := subject['reliability'].get(source)):
      continue
    pixels = found['pixels'] if source == 'mean' else ()
    points = of_values(found['confidence'], found['frequency'], pixels)
    drawn = style._replace(dash='2 5', hollow=True) if source == 'own' else style
    series.append(Series(name, drawn, points))
    errors.append(f'ECE {_ece(found):.4f} {name}')
  agreeing = 'agreeing' if len(content['data']['classes']) > 2 else 'marking it'
  return Figure(
    subject['name'],
    Axis('predicted probability', 0, 1),
    Axis(f'readers {agreeing}', 0, 1),
    tuple(series),
    caption='; '.join(errors),
    counted='pixels',
    size=(320, 280),
  )


def _ece(found: Mapping[str, Any]) -> float:
  rows = zip(found['confidence'], found['frequency'], found['pixels'], strict=True)
  gaps = [abs(c - f) * n for c, f, n in rows if n]
  return sum(gaps) / (sum(found['pixels']) or 1)


def _flip_rates(content: Content) -> Figure:
  styles, classes = look(content), content['flips']['classes']
  series = [
    Series(
      f'{s["name"]}: mean error {number(s["flips"]["error"])}', styles[s['name']],
      of_values(s['flips']['flip_rates'], range(len(classes))), line=False,
    )
    for s in content['subjects']
  ]  # fmt: skip
  right = of_values([c['share'] for c in classes], range(len(classes)))
  return Figure(
    'How often is each class flipped?',
    Axis('share of flips', 0, 1),
    None,
    (Series('as it should be', TICK, right), *series),
    rows=tuple(c['base'] for c in classes),
    caption='Among the pixels of a class that samples call by either of its names, the share of '
    "the twin's; ticks where it should be.",
  )


def _flip_names(content: Content) -> Figure:
  styles, classes = look(content), content['flips']['classes']
  names = [c[which] for c in classes for which in ('base', 'twin')]
  truth = [v for c in classes for v in (1 - c['share'], c['share'])]
  series = [Series('as it should be', TICK, of_values(truth, range(len(names))))]
  for s in content['subjects']:
    said, style = s['flips'], styles[s['name']]
    shares = [v for pair in said['frequencies'] for v in pair]
    series.append(Series(s['name'], style, of_values(shares, range(len(names))), line=False))
    if said['stated']:
      stated = of_values([said['stated'].get(n) for n in names], range(len(names)))
      name = f'{s["name"]}, as it states itself'
      series.append(Series(name, style._replace(hollow=True), stated, line=False))
  return Figure(
    'How often is each name used?',
    Axis('share of all pixels of the class', 0, 1),
    None,
    tuple(series),
    rows=tuple(names),
    caption='Share of all pixels of a class that samples call by either name; what misses from 1 '
    'is another class. Hollow: the probability that the method states itself, where the black-box '
    'prediction is right.',
  )


def _modes(content: Content) -> Figure:
  styles, modes = look(content), content['flips']['modes']
  places = range(len(modes))
  series = [
    Series(s['name'], styles[s['name']], of_values(s['flips']['mode_masses'], places), line=False)
    for s in content['subjects']
  ]
  return Figure(
    'Does every combination of flips get its mass?',
    Axis('mass', low=0),
    None,
    (Series('as it should be', TICK, of_values([*modes.values()], places)), *series),
    rows=tuple(modes),
    caption='Mass of every combination of renamed classes, by majority within each class, over the '
    'images that show all of them.',
  )


# --- without a browser


def markdown(content: Content, drawn: Mapping[str, str]) -> str:
  """drawn: title of each file in pictures/."""
  data, units = content['data'], content['units']
  people = '' if units['name'] == 'images' else f' of {units["count"]:,} {units["name"]}'
  about = f'{data["name"]}, {data["split"]}: {content["images"]:,} images{people}'
  lines = (*content['models'], *findings(content), *content['remarks'])
  legend = [
    [m['name'], f'`{m["convention"]}`', BETTER[m['better']], f'{m["explanation"]} {m["more"]}']
    for m in content['metrics']
  ]
  head = ('score', 'exactly', 'better', 'what it says')
  shown = f'image, readers, samples of {content["subjects"][0]["name"]}, their mean, its entropy'
  out = [f'# {prose(content["title"])}', '']
  out += [f'{prose(about)}, {content["samples"]} samples per image. {content["created"]}.', '']
  out += [*(f'- {prose(line)}' for line in lines), '', '## Scores', '']
  over = f'{units["count"]:,} {units["name"]}'
  out += [f'Mean and 95 % interval (bootstrap over {over}); the best in bold.', '']
  out += [*scores(content).markdown(), '', *table('', head, legend, words=range(4)).markdown(), '']
  out += ['## Pictures', '', f'Cases show, from left to right: {prose(shown)}.', '']
  titles = {name: prose(title) for name, title in drawn.items()}
  out += [f'{title}\n\n![{title}](pictures/{name})\n' for name, title in titles.items()]
  out += ['## How to reproduce', '', *block(content['command']), '']
  out += [', '.join(f'{k} {v}' for k, v in content['versions'].items()), '']
  return '\n'.join(out)


def terminal(content: Content, width: int = WIDTH) -> str:
  """The scores for a terminal, with what they mean below."""
  units = content['units']
  lines = [*scores(content).terminal(width), '']
  if units['count'] < 2:
    lines.append(
      f'* the best; one of the {units["name"]} alone says nothing of others: no intervals.'
    )
  else:
    over = f'{units["count"]:,} {units["name"]}'
    lines.append(f'* the best; in brackets 95 % bootstrap intervals over {over}.')
  seen: set[str] = set()
  for m in content['metrics']:
    line = f'{m["name"]} is {m["convention"]}, {BETTER[m["better"]]}.'
    texts = [text for text in (m['explanation'], m['more']) if text and text not in seen]
    line += ''.join(f' {text}' for text in texts)
    seen.update(texts)
    lines += textwrap.wrap(line, width, subsequent_indent='  ', break_on_hyphens=False)
  return '\n'.join(lines) + '\n'
