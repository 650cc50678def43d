"""The report as one HTML page: no script, no network, pictures and charts inside."""

import json
from html import escape
from typing import Any

from car_jax.evaluate import charts, flip_charts, html, page_pictures, tables
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.page_style import CSS
from car_jax.evaluate.predict import READERS
from car_jax.evaluate.results import Results


def page(results: Results, about: Any, choice: Choice, cases: dict[int, Case]) -> str:
  """The whole document. about: report.About; cases: those of `choice` by image index."""
  sections = {
    'scores': ('Scores', _scores(results)),
    'figures': ('Questions', _figures(results)),
    'flips': ('Class flips', _flips(results)),
    'cases': ('Cases', _cases(results, choice, cases)),
    'diversity': ('Sample diversity', _diversity(results, choice, cases)),
    'reproduce': ('How to reproduce', _reproduce(results, about)),
  }
  head = f'{_facts(results, about)}{html.findings([*tables.findings(results), *results.remarks()])}'
  return html.document('Evaluation report', about.title, head, sections, css=CSS)


def _facts(results: Results, about: Any) -> str:
  count, unit = results.units
  people = '' if unit == 'images' else f' <small>of {count:,} {unit}</small>'
  info = results.info
  facts = {
    'data set': f'{escape(info.name)} <small>{escape(about.split)}</small>',
    'images': f'{len(results.ids):,}{people}',
    'readers per image': f'up to {info.readers}',
    'classes': f'{info.num_classes}',
    'samples per image': f'{results.plan.samples}',
    'made': escape(about.created),
  }
  models = ''.join(f'<p class="note">{escape(line)}</p>' for line in about.models)
  return models + html.facts(facts)


def _scores(results: Results) -> str:
  metrics = results.plan.metrics
  head = ''.join(
    f'<th scope="col"><abbr title="{escape(m.about.title + ". " + m.about.text, quote=True)}">'
    f'{escape(m.name)}</abbr> {tables.ARROWS[m.about.better]}'
    f'<small>{escape(_bracket(m.convention))}</small></th>'
    for m in metrics
  )
  rows = ''.join(_score_row(results, s) for s in results.subjects)
  count, unit = results.units
  together = ', all images of a patient together' if unit == 'patients' else ''
  floor = (
    ' <b>readers</b> is the floor: as many masks drawn at random from the readers of the same '
    'image. It shows what is left to chance; no model is expected to pass it.'
    if READERS in results.subjects
    else ''
  )
  return (
    f'<div class="scroll" tabindex="0" role="group" aria-label="scores"><table><thead><tr>'
    f'<th scope="col">subject</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    f'<p class="note">Mean over {len(results.ids):,} images, below it the 95 % interval '
    f'(bootstrap over {count:,} {unit}{together}). ↓ lower is better, ↑ higher, ≈ as the readers. '
    f'The best value of a column is marked.{floor}</p>{_explanations(results)}'
  )


def _score_row(results: Results, subject: str) -> str:
  cells = []
  for m in results.plan.metrics:
    interval = results.interval(subject, m)
    if interval.mean != interval.mean:
      why = m.left_out(results.says[subject])
      cells.append(f'<td>–{f"<small>{why}</small>" if why else ""}</td>')
      continue
    mean, ends, top = tables.cell(results, subject, m, ' – ')
    mean = f'<b>{mean}</b>' if top else mean
    ends = f'<small>{ends}</small>' if ends else ''
    skipped = f'<small>{interval.skipped:,} images skipped</small>' if interval.skipped else ''
    cells.append(f'<td>{mean}{ends}{skipped}</td>')
  kind = ' class="floor"' if subject == READERS else ''
  note = results.notes.get(subject, '')
  note = f'<small>{escape(note)}</small>' if note else ''
  name = page_pictures.swatch(results, subject) + escape(subject)
  return f'<tr{kind}><th scope="row">{name}{note}</th>{"".join(cells)}</tr>'


def _bracket(convention: str) -> str:
  """'ged16[v,absent=1,fg]' -> 'v, absent=1, fg'."""
  return ', '.join(convention.partition('[')[2].rstrip(']').replace(', ', ',').split(','))


def _explanations(results: Results) -> str:
  """One entry for each kind of score, with the exact names of those in the table."""
  by_kind: dict[str, list[Any]] = {}
  for m in results.plan.metrics:
    by_kind.setdefault(m.kind, []).append(m)
  items = ''
  for group in by_kind.values():
    about = group[0].about
    names = ', '.join(m.name for m in group)
    exact = ' '.join(f'<code>{escape(m.convention)}</code>' for m in group)
    extra = _NO_SELF_PAIRS if any(m.estimator == 'u' for m in group) else ''
    extra += _OWN if any(m.own for m in group) else ''
    items += (
      f'<div><dt>{escape(names)} <span class="note">{escape(about.title)}, '
      f'{tables.BETTER[about.better]}</span></dt>'
      f'<dd>{escape(about.text)}{extra}<br>{exact}</dd></div>'
    )
  return (
    '<details open><summary>What the columns mean</summary><p class="note">Published values of one '
    'score differ by conventions. Compare a number only with one of the same exact name, which '
    f'stands in grey.</p><dl class="metrics">{items}</dl></details>'
  )


_NO_SELF_PAIRS = (
  ' With [u], no map is compared with itself: the expectation is then the same for any number of '
  'samples, and it may be negative.'
)
_OWN = ' With [own], of the probabilities that a method states itself, else of its samples’ mean.'


def _figure(drawing: str, title: str, caption: str) -> str:
  return f'<figure><h3>{title}</h3>{drawing}<figcaption>{caption}</figcaption></figure>'


def _figures(results: Results) -> str:
  main, out = results.plan.main, []
  if main is not None:
    out += [
      _figure(
        charts.intervals(results, main),
        'How good, and how sure is it?',
        'Each dot is the mean over all images, its bar the 95 % interval for another draw of '
        'images. Intervals that overlap a little can still hide a clear difference, since all '
        'subjects see the same images: the sentences at the top use that. The dotted line is the '
        "readers' floor."
        if READERS in results.subjects
        else 'Each dot is the mean over all images, its bar the 95 % interval.',
      ),
      _figure(
        charts.histogram(results, main),
        'Is it good everywhere?',
        'One band per subject: how many images have which score, each band scaled to its own '
        'highest bar; the line marks the median. Look for a long tail to the right (images that '
        'fail) and for a second hump.',
      ),
    ]
    if any(results.means(s, 'part/d_ys') is not None for s in results.subjects):
      out.append(
        _figure(
          charts.decomposition(results),
          'Do samples disagree as much as readers do?',
          'The energy distance is made of these three. Samples that cannot be told from readers '
          'have all marks together. A diamond left of the bar means too little variety, right of '
          'it too much; a dot far to the right means masks that fit no reader.',
        )
      )
      out.append(
        _figure(
          charts.curve(results),
          'Does the number of samples matter?',
          'The published estimator (v) counts the zero distance of each sample to itself, so it '
          'falls as samples are added, whatever the model. The other (u) leaves self pairs out '
          'and has the same expectation for every number. Compare at equal N, or by u.',
        )
      )
  return f'<div class="two">{"".join(out)}</div>{_reliability(results)}'


def _reliability(results: Results) -> str:
  panels = []
  for subject in results.subjects:
    if results.reliability(subject, 'mean') is None:
      continue
    name = page_pictures.swatch(results, subject) + escape(subject)
    drawn = charts.reliability(results, subject)
    errors = _calibration_errors(results, subject)
    panels.append(
      f'<figure><strong>{name}</strong>{drawn}<figcaption>{errors}</figcaption></figure>'
    )
  if not panels:
    return ''
  what = (
    'the likeliest class against the share of readers that agree'
    if results.info.num_classes > 2
    else f'{escape(str(results.info.class_names[1]))} against the share of readers that mark it'
  )
  return (
    '<h3 style="margin-top:36px">Does 30 % mean 30 %?</h3>'
    f'<p class="note">Probability of {what}, over all pixels, in 15 bins. Filled dots: mean of the '
    'samples. Hollow dots: the class probabilities that the method states itself. On the diagonal '
    'a pixel predicted at 30 % is marked by 30 % of the readers; below it the model promises too '
    'much. The bars count pixels on a logarithmic scale: a dot far off matters little where few '
    f'pixels are.</p><div class="panels">{"".join(panels)}</div>'
  )


def _flips(results: Results) -> str:
  if not results.plan.flips:
    return ''
  panels = []
  for subject in results.subjects:
    name = page_pictures.swatch(results, subject) + escape(subject)
    drawn = flip_charts.names(results, subject), flip_charts.masses(results, subject)
    panels.append(f'<figure><strong>{name}</strong>{"".join(drawn)}</figure>')
  overview = _figure(
    flip_charts.rates(results),
    'How often is each class flipped?',
    'Among the pixels of a class that samples call by either of its names, the share of the '
    "twin's; ticks where it should be.",
  )
  return (
    '<p>Some classes of this data set were renamed to a twin, for a whole image at a time, with a '
    'known probability. So the right answer is known: the share of samples that use each name '
    '(ticks).</p><p class="note">Upper bars: share of all pixels of a class that samples call by '
    'either name; what misses from 1 is another class. Hollow dots: the probability that the '
    'method states itself, where the black-box prediction is right. Lower bars: mass of every '
    'combination of renamed classes, by majority within each class, over the images that show all '
    f'of them.</p><div class="two">{overview}</div><div class="panels">{"".join(panels)}</div>'
  )


def _calibration_errors(results: Results, subject: str) -> str:
  parts = []
  for source, name in (('mean', 'mean of the samples'), ('own', 'own probabilities')):
    if (table := results.reliability(subject, source)) is not None:
      n = table.pixels > 0
      gap = abs(table.confidence[n] - table.frequency[n]) @ table.pixels[n] / table.pixels.sum()
      parts.append(f'ECE <b>{gap:.4f}</b> {name}')
  return '<br>'.join(parts)


def _cases(results: Results, choice: Choice, cases: dict[int, Case]) -> str:
  if not choice.cases:
    return ''
  subject = escape(results.subjects[0])
  return (
    f'<p>Worst, typical and best images of <b>{subject}</b> (the best among images whose readers '
    'differ). Do single samples look like something a reader would draw? Is the mean bright where '
    'readers agree, and the entropy high along the rims where they do not?</p>'
    f'{page_pictures.cases(results, choice, cases)}'
  )


def _diversity(results: Results, choice: Choice, cases: dict[int, Case]) -> str:
  if not choice.diverse:
    return ''
  return (
    '<p>All samples of a few images, from much to little disagreement between readers. Look for '
    'whole, coherent alternatives that differ as the readers do; identical copies (no variety) and '
    'speckle (pixels drawn one by one) are the two ways to fail.</p>'
    f'{page_pictures.diversity(results, choice, cases)}'
  )


def _reproduce(results: Results, about: Any) -> str:
  config = escape(json.dumps(tables.plain(about.config), indent=2))
  command = f'<pre>{escape(about.command)}</pre>' if about.command else ''
  cite = ' '.join(
    escape(str(part)) for part in (results.info.citation, results.info.licence) if part
  )
  notes = ''.join(f'<p class="note">{escape(n)}</p>' for n in about.notes)
  return (
    f'{command}<p class="note">Draws are keyed by example, so neither the batch size nor the '
    f'number of devices changes them. Evaluating took {results.seconds:.0f} s.</p>{notes}'
    f'{html.versions(about.versions)}'
    f'<details><summary>Configuration</summary><pre>{config}</pre></details>'
    '<p class="note">Beside this page: <code>results.json</code> (all numbers), '
    '<code>per_image.csv</code> (every image), <code>report.md</code>, <code>pictures/</code>.</p>'
    + (f'<p class="note">Data: {cite}</p>' if cite else '')
  )
