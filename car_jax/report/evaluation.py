"""The report on one data set scored against its readers: its page, Markdown and terminal table.

Of the content of results.json, see evaluate/report.py.
"""

import dataclasses
import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

from car_jax.metrics.base import BETTER
from car_jax.report import comparison
from car_jax.report import evaluation_figures as figures
from car_jax.report.page import Card, render
from car_jax.report.table import WIDTH, Cell, Column, Row, Table, block, number, prose, span, table

Content = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Gallery:
  """legend: colours of readers and classes, of the entropy; see evaluate/gallery.py."""

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
    published=published(content, ' – '),
    compared=comparison.tables(content),
    metrics=[_explained(group) for group in kinds],
    figures=figures.by_section(content),
    styles=figures.look(content),
    gallery=gallery,
    what='the likeliest class' if several else data['classes'][1],
    readers='that agree' if several else 'that mark it',
    cite=' '.join(str(part) for part in (data['citation'], data['licence']) if part),
  )


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


def _places(content: Content, metric: str) -> int:
  """Decimals that show a column: a small score such as an ECE gets one more."""
  values = [s['scores'][metric]['mean'] for s in content['subjects']]
  size = max([abs(v) for v in values if v is not None], default=1.0)
  return 3 if size >= 0.1 else 4


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
  styles, rows = figures.look(content), []
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
      note = '; '.join(filter(None, [span((entry['low'], entry['high']), digits, joint), skipped]))
      top = name in tops[m['name']]
      cells.append(Cell(number(entry['mean'], digits), note, top))
    rows.append(Row(tuple(cells), floor=name == content['floor']))
  columns = [Column('subject', words=True)]
  for m in metrics:
    exact = ', '.join(m['convention'].partition('[')[2].rstrip(']').replace(', ', ',').split(','))
    tip = f'{m["title"]}. {m["explanation"]} {m["more"]}'.strip()
    columns.append(Column(m['name'], better=m['better'], note=exact, tip=tip, key=m['name']))
  return Table('scores', tuple(columns), tuple(rows), sortable=True)


def published(content: Content, joint: str = ' to ') -> Table | None:
  """What is published of these scores beside ours, of the first subject; None for nothing."""
  first, rows = content['subjects'][0], []
  for known in content['published']:
    entry, places = first['scores'][known['score']], _places(content, known['score'])
    ours = Cell(number(entry['mean'], places), span((entry['low'], entry['high']), places, joint))
    of = 'trainings' if known['of'] == 'training' else 'released weights'
    rows.append((known['score'], known['text'], ours, of, known['source'], known['convention']))
  head = ('score', 'published', f'here, {first["name"]}', 'of', 'source', 'convention there')
  return table('published scores', head, rows, words=(0, 3, 4, 5)) if rows else None


def findings(content: Content) -> list[str]:
  """The main score in sentences: the first subject, against each other one, and the floor."""
  main = content['main']
  if not main:
    return []
  first, *others = content['subjects']
  entry, places = first['scores'][main], _places(content, main)
  ends = span((entry['low'], entry['high']), places)
  few = f'no interval: fewer than two {content["units"]["name"]} with this score'
  sure = f'95 % interval {ends}' if ends else few
  lines = [f'{first["name"]}: {main} {number(entry["mean"], places)} ({sure}).']
  key = dict(metric=main, subject=first['name'])
  gaps = {d['minus']: d for d in content['differences'] if d | key == d}
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
      lines.append(
        f'{word} than {other} by {size} ({span((near, far), places)}, on the same images).'
      )
  return lines + content['comparison']


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
  if beside := published(content):
    out += ['## Published', '', *beside.markdown(), '']
  for title, made in comparison.tables(content).items():
    out += [f'## {title}', '', prose(made.about), '', *made.markdown(), '']
  out += ['## Pictures', '', f'Cases show, from left to right: {prose(shown)}.', '']
  titles = {name: prose(title) for name, title in drawn.items()}
  out += [f'{title}\n\n![{title}](pictures/{name})\n' for name, title in titles.items()]
  out += ['## How to reproduce', '', *block(content['command']), '']
  out += [', '.join(f'{k} {v}' for k, v in content['versions'].items()), '']
  return '\n'.join(out)


EXPLAIN = 'what the scores mean: --explain, or the report'


def terminal(content: Content, width: int = WIDTH, *, explain: bool = False) -> str:
  """The scores for a terminal; with `explain` what they mean is below, else where to read it."""
  units = content['units']
  lines = [*scores(content).terminal(width), '']
  legend = ['* the best'] if any(best(content, m) for m in content['metrics']) else []
  if units['count'] < 2:
    legend.append(f'one of the {units["name"]} alone says nothing of others: no intervals')
  else:
    legend.append(f'in brackets 95 % bootstrap intervals over {units["count"]:,} {units["name"]}')
  lines.append(f'{"; ".join(legend)}.')
  if beside := published(content):
    lines += ['', *beside.terminal(width), '']
  lines += _meanings(content, width) if explain else [EXPLAIN]
  return '\n'.join(lines) + '\n'


def _meanings(content: Content, width: int) -> list[str]:
  """Every score's convention and what it says, each text once."""
  seen: set[str] = set()
  lines = []
  for m in content['metrics']:
    line = f'{m["name"]} is {m["convention"]}, {BETTER[m["better"]]}.'
    texts = [text for text in (m['explanation'], m['more']) if text and text not in seen]
    line += ''.join(f' {text}' for text in texts)
    seen.update(texts)
    lines += textwrap.wrap(line, width, subsequent_indent='  ', break_on_hyphens=False)
  return lines
