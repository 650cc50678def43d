"""The page of a reliability study, of the content of study.json alone."""

from collections.abc import Mapping
from typing import Any

from car_jax.reliability import correlation, findings, pivot, ranks, survival
from car_jax.reliability.view import View
from car_jax.report import study_figures as figures
from car_jax.report import study_tables as tables
from car_jax.report.figure import styles
from car_jax.report.page import Card, Select, Strip, Tile, render, select

MANY = 60  # with more rows the table starts with one calibrator
PICTURES = ('image', 'label', 'prediction', 'error', 'uncertainty')


def page(study: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
  """The whole document. pictures: PNG bytes by the file names that `study['worst']` holds."""
  view = View(dict(study))
  ranked, correlated = ranks.as_table(view), correlation.as_table(view)
  title = str(study.get('title') or 'Reliability study')
  return render(
    'study.html.j2',
    kicker='Reliability study',
    title=title,
    view=view,
    study=study,
    findings=findings.findings(view),
    facts=_facts(view),
    controls=_controls(view),
    styles=dict(models=styles(view.models), calibrators=styles(view.calibrators)),
    scatters=figures.scatters(view),
    ranks=ranked,
    ranks_about=ranks.covers(view) if ranked else '',
    pivots=pivot.tables(view),
    models_by_shift=figures.models_by_shift(view),
    calibrators_by_shift=figures.calibrators_by_shift(view),
    by_set=figures.by_set(view),
    reliability=figures.reliability(view),
    near_borders=figures.near_borders(view),
    errors=figures.errors(view),
    failing=figures.failing(view),
    failing_scores=pivot.failing(view),
    tables=dict(
      sets=tables.sets(view),
      scores=tables.scores(view),
      class_iou=tables.class_iou(view),
      scenes=tables.scenes(view),
      fits=tables.fits(view),
      objects=tables.objects(view),
    ),
    guarantees=survival.tables(view),
    guarantees_about=survival.covers(view),
    guarantees_by_shift=figures.guarantees(view),
    sets_of_classes=survival.details(view),
    unknown=pivot.unknown(view),
    image_level=pivot.image_level(view),
    correlations=correlated,
    correlation_sides={c['name']: c for c in study.get('correlations') or []},
    correlation_figures=figures.correlations(view),
    worst=_worst(view, pictures),
    metrics=[
      dict(title=m.title, better=m.better, about=m.about, exact=[m.name])
      for m in view.metrics.values()
    ],
    took=[f'It took {float(study["seconds"]):,.0f} s.'] if study.get('seconds') else [],
  )


def _facts(view: View) -> dict[str, Any]:
  images = sum(int(s.get('images') or 0) for s in view.sets.values())
  pixels = sum(int(s.get('pixels') or 0) for s in view.sets.values())
  return {
    'models': f'{len(view.models)}',
    'sets': (f'{len(view.sets)}', f'{len(view.shifted())} shifted'),
    'calibrators': f'{len(view.calibrators)}',
    'images': (f'{images:,}', f'{pixels:,} pixels'),
    'made': str(view.study.get('created') or ''),
  }


def _controls(view: View) -> dict[str, list[Select]]:
  """What each section is chosen by."""
  plain, ways, lines = view.plain, [*view.calibrators], figures.lines(view)
  first = next(iter(view.models), '*')
  other = ways[1] if len(ways) > 1 else '*'
  strongest = next((c for c, sets in lines.items() if view.strongest in sets), '*')
  return dict(
    accuracy=[select('calibrator', ways, chosen=other, keep=plain, label='beside it')],
    shift=[
      select('model', view.models, chosen=first),
      select('condition', lines, chosen=strongest),
      select('metric', [m.name for m in figures.shown(view)]),
    ],
    scores=[
      select('model', view.models),
      select('set', view.sets),
      select('calibrator', ways, chosen=plain if len(view.cells) > MANY else '*'),
    ],
    confidence=[
      select('model', [m for m, _, _ in view.curves], chosen=first),
      select('set', view.sets, chosen=view.reference),
      select('set', view.sets, chosen=view.strongest or view.reference, label='second set'),
    ],
    fits=[select('model', view.models), select('calibrator', ways)],
    guarantees=[select('model', view.models), select('set', view.sets), select('calibrator', ways)],
    unknown=[select('model', view.models)],
    worst=[select('model', view.models, chosen=first), select('set', view.sets)],
  )


def _worst(view: View, pictures: Mapping[str, bytes]) -> list[Card]:
  return [_card(view, entry, pictures) for entry in view.study.get('worst') or []]


def _card(view: View, entry: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Card:
  files = entry.get('pictures') or {}
  order = [*(p for p in PICTURES if p in files), *(p for p in files if p not in PICTURES)]
  tiles = tuple(
    Tile(pictures[files[p]], p, f'{p} of {entry.get("id")}') for p in order if files[p] in pictures
  )
  values = (figures.named(view, name, v) for name, v in (entry.get('values') or {}).items())
  note = ': '.join(filter(None, [str(entry.get('why') or ''), ', '.join(values)]))
  labels = dict(model=str(entry.get('model')), set=str(entry.get('set')))
  return Card(str(entry.get('id')), (Strip('', '', tiles),), note=note, labels=labels)
