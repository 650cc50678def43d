"""A reliability study as one HTML file: no network, pictures and charts inside.

Its controls need the script inside; without it all charts and rows are shown.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from car_jax.evaluate import html
from car_jax.reliability import findings, page_correlation, page_plots, page_tables
from car_jax.reliability.legend import BETTER, TERMS
from car_jax.reliability.page_plots import controls, select
from car_jax.reliability.page_style import CSS, SCRIPT, WATCH
from car_jax.reliability.view import View

MANY = 60  # with more rows the table starts with one calibrator
PICTURES = ('image', 'label', 'prediction', 'error', 'uncertainty')


def page(study: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
  """The whole document. pictures: PNG bytes by the file names that `study['worst']` holds."""
  view = View(dict(study))
  sections = {
    'accuracy': ('Accuracy against calibration', page_plots.scatters(view)),
    'tables': ('By model and set', page_tables.by_set(view)),
    'shift': ('What shift does', page_plots.shifts(view)),
    'scores': ('All scores', _scores(view)),
    'confidence': ('Can the confidence be trusted?', page_plots.diagrams(view)),
    'recalibration': ('What recalibration did', _fits(view)),
    'unknown': ('Does it notice the unknown?', _unknown(view)),
    'correlation': ('Does synthetic shift predict real shift?', page_correlation.section(view)),
    'worst': ('Worst images', _worst(view, pictures)),
    'legend': ('Legend', _legend(view)),
    'reproduce': ('How to reproduce', _reproduce(view)),
  }
  head = html.findings(findings.findings(view)) + _facts(view) + _compared(view)
  title = str(study.get('title') or 'Reliability study')
  scripts = dict(watch=WATCH, script=SCRIPT)
  return html.document('Reliability study', title, head, sections, css=CSS, **scripts)


def _facts(view: View) -> str:
  images = sum(int(s.get('images') or 0) for s in view.sets.values())
  pixels = sum(int(s.get('pixels') or 0) for s in view.sets.values())
  facts = {
    'models': f'{len(view.models)}',
    'sets': f'{len(view.sets)} <small>{len(view.shifted())} shifted</small>',
    'calibrators': f'{len(view.calibrators)}',
    'images': f'{images:,} <small>{pixels:,} pixels</small>',
    'made': escape(str(view.study.get('created') or '')),
  }
  return html.facts(facts)


def _compared(view: View) -> str:
  return (
    '<details><summary>What was compared: sets, models, calibrators</summary>'
    f'{page_tables.compared(view)}</details>'
  )


def _scores(view: View) -> str:
  table = page_tables.scores(view)
  if not table:
    return ''
  first = view.plain if len(view.cells) > MANY else '*'
  bar = controls(
    select('model', view.models), select('set', view.sets),
    select('calibrator', view.calibrators, chosen=first),
  )  # fmt: skip
  out = (
    '<p>Choose a heading to sort by it, once more to turn the order round.</p>'
    f'{bar}{table}<p class="note">Below each value its 95 % interval (bootstrap over images). '
    'Marked: the best of each set, over models and calibrators. ↓ lower is better, ↑ higher. A '
    'dash is a value that is not defined there.</p>'
  )
  if classes := page_tables.class_iou(view):
    out += (
      '<h3>IoU of every class, before recalibration</h3>'
      '<p class="note">A dash: the set does not show the class.</p>' + classes
    )
  if spread := page_tables.scenes(view):
    out += (
      '<details><summary>Spread over scenes</summary><p class="note">A mean can hide a scene in '
      f'which the model fails. Before recalibration.</p>{spread}</details>'
    )
  return out


def _fits(view: View) -> str:
  table = page_tables.fits(view)
  if not table:
    return ''
  warnings = ''.join(
    f'<p class="warning"><span class="warn">⚠ Warning</span> {escape(str(f.get("model")))}, '
    f'{escape(str(f.get("calibrator")))}: {escape("; ".join(map(str, f["warnings"])))}.</p>'
    for f in view.study['fits']
    if f.get('warnings')
  )
  bar = controls(select('model', view.models), select('calibrator', view.calibrators))
  return (
    '<p>Each calibrator was fitted on the labelled images that the table names. The numbers are '
    'those of the fit; what it is worth elsewhere stands in the scores. A temperature above 1 '
    'makes the model less sure, below 1 surer. Several are given as their range and number.</p>'
    f'{warnings}{bar}{table}<p class="note">Before → after, on the images of the fit.</p>'
  )


def _unknown(view: View) -> str:
  local = page_tables.scores(view, ('unknown objects', 'image-level'))
  whole = page_tables.image_level(view)
  each = page_tables.objects(view)
  bar = controls(
    select('model', view.models),
    select('set', dict.fromkeys(e['set'] for e in view.study.get('objects') or [])),
    select('calibrator', view.calibrators),
  )
  out = bar if local or whole else ''
  if local:
    out += (
      '<h3>Single pixels</h3><p class="note">Objects that no training class describes, searched by '
      f'low confidence among the pixels of known classes.</p>{local}'
    )
  if each:
    out += (
      '<h3>Each object</h3><p class="note">Scores within each image, then averaged over the images '
      f'of the object, before recalibration. objects.csv has their intervals.</p>{each}'
    )
  if whole:
    out += (
      '<h3>Whole images</h3><p class="note">One score per image tells those of the known set from '
      f'those of the other. The best AUROC of each pair of sets is marked.</p>{whole}'
    )
  return out


def _worst(view: View, pictures: Mapping[str, bytes]) -> str:
  cards = ''.join(_card(view, entry, pictures) for entry in view.study.get('worst') or [])
  if not cards:
    return ''
  first = next(iter(view.models))
  bar = controls(select('model', view.models, chosen=first), select('set', view.sets))
  return (
    '<p>Where a model fails most. Compare the error map with the uncertainty map: a reliable model '
    'is unsure (bright) where it is wrong.</p>' + bar + cards
  )


def _card(view: View, entry: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
  files = entry.get('pictures') or {}
  order = [*(p for p in PICTURES if p in files), *(p for p in files if p not in PICTURES)]
  tiles = ''.join(
    html.tile(pictures[files[p]], p, f'{p} of {entry.get("id")}')
    for p in order
    if files[p] in pictures
  )
  values = ', '.join(
    page_plots.named(view, name, v) for name, v in (entry.get('values') or {}).items()
  )
  who = page_tables.attributes(model=entry.get('model'), set=entry.get('set'))
  return (
    f'<div class="case"{who}><span class="tag">{escape(str(entry.get("model")))}</span>'
    f'<span class="tag">{escape(str(entry.get("set")))}</span>'
    f'<h3>{escape(str(entry.get("id")))}</h3><p class="note">{escape(str(entry.get("why") or ""))}'
    f'{f": {values}" if values else ""}</p><div class="tiles">{tiles}</div></div>'
  )


def _legend(view: View) -> str:
  items = ''.join(
    f'<div><dt>{escape(m.title)} <span class="note">{BETTER[m.better]}</span></dt>'
    f'<dd>{escape(m.about)} <code>{escape(m.name)}</code></dd></div>'
    for m in view.metrics.values()
  )
  terms = ''.join(f'<dt>{escape(t)}</dt><dd>{escape(d)}</dd>' for t, d in TERMS.items())
  return (
    f'<dl class="metrics">{items}</dl><h3 style="margin-top:28px">Words</h3>'
    f'<dl class="terms">{terms}</dl><h3 style="margin-top:28px">Colours</h3>'
    f'<p>Each model and each calibrator has a colour, a marker and a dash of its own.</p>'
    f'{page_plots.key(view.models)}{page_plots.key(view.calibrators)}'
    '<p class="note">The colours can be told apart with the common forms of colour blindness, the '
    'markers and dashes in black and white.</p>'
  )


def _reproduce(view: View) -> str:
  study = view.study
  command = f'<pre>{escape(str(study["command"]))}</pre>' if study.get('command') else ''
  seconds = study.get('seconds')
  took = f'<p class="note">It took {float(seconds):,.0f} s.</p>' if seconds else ''
  notes = ''.join(f'<p class="note">{escape(str(n))}</p>' for n in study.get('notes') or [])
  versions = study.get('versions')
  return f'{command}{took}{notes}' + (html.versions(versions) if versions else '')
