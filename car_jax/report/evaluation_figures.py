"""The figures of the readers' report, of the content of results.json."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from car_jax import folders
from car_jax.report import figure
from car_jax.report.figure import DOTTED, TICK, Axis, Figure, Point, Series, Style, of_values, value
from car_jax.report.table import number

Content = Mapping[str, Any]
SOURCES = {'mean': 'mean of the samples', 'own': 'own probabilities'}
PARTS = {
  'd_ys': ('sample to reader', Style('s0', 'circle')),
  'd_ss': ('sample to sample', Style('s1', 'diamond')),
  'd_yy': ('reader to reader', TICK),
}
RIGHT = 'as it should be'


def look(content: Content) -> dict[str, Style]:
  """How each subject is drawn."""
  return figure.styles([s['name'] for s in content['subjects']], floor=content['floor'])


def by_section(content: Content) -> dict[str, dict[str, Figure]]:
  """Section of the page -> name of a file -> figure."""
  main: dict[str, Figure] = {}
  if content['main']:
    main |= {'scores.svg': _intervals(content), 'per-image.svg': _histogram(content)}
    if any(s['distances'].get('d_ys') is not None for s in content['subjects']):
      main |= {'distances.svg': _distances(content), 'samples.svg': _by_samples(content)}
  reliability = {
    f'reliability-{folders.slug(s["name"])}.svg': _reliability(content, s)
    for s in content['subjects']
    if s['reliability'].get('mean')
  }
  flips = _flips(content) if content['flips'] else {}
  return dict(main=main, reliability=reliability, flips=flips, costs=_costs(content))


def _rows(
  title: str, axis: Axis, names: Iterable[str], series: Iterable[Series], caption: str, **how: Any
) -> Figure:
  kept = tuple(s for s in series if s.points)
  return Figure(title, axis, None, kept, rows=tuple(names), caption=caption, **how)


def _each(
  content: Content, points: Callable[[Any], Sequence[Point]], names: Mapping[str, str] = {}
) -> list[Series]:
  """A series for each subject; names: other ones."""
  styles = look(content)
  return [
    Series(names.get(s['name'], s['name']), styles[s['name']], tuple(points(s)), line=False)
    for s in content['subjects']
  ]


def _intervals(content: Content) -> Figure:
  main = content['main']
  score = {s['name']: s['scores'][main] for s in content['subjects']}
  shown = [name for name, of in score.items() if of['mean'] is not None]

  def point(subject: Any) -> list[Point]:
    of, name = score[subject['name']], subject['name']
    if name not in shown:
      return []
    return [Point(of['mean'], shown.index(name), left=value(of['low']), right=value(of['high']))]

  floor = [
    Point(score[n]['mean'], k) for n in shown if n == content['floor'] for k in range(len(shown))
  ]
  return _rows(
    'How good, and how sure is it?',
    Axis(next(m['convention'] for m in content['metrics'] if m['name'] == main)),
    shown,
    [Series("readers' floor", Style('muted', 'tick'), tuple(floor)), *_each(content, point)],
    'Each dot is the mean over all images, its bar the 95 % interval for another draw of images. '
    'Intervals that overlap a little can still hide a clear difference, since all subjects see the '
    'same images: the sentences at the top use that.'
    + (" The upright lines are the readers' floor." if floor else ''),
    legend=False,
  )


def _histogram(content: Content) -> Figure:
  edges, counts, medians = (content['histograms'][k] for k in ('edges', 'counts', 'medians'))
  names = [*counts]
  columns = lambda name: [
    Point((a + b) / 2, names.index(name), left=a, right=b, counted=float(n))
    for (a, b), n in zip(itertools.pairwise(edges), counts[name], strict=True)
    if n
  ]
  middle = Series('median', TICK, of_values((medians[n] for n in names), range(len(names))))
  return _rows(
    'Is it good everywhere?',
    Axis(f'{content["main"]} of an image', edges[0], edges[-1]),
    names,
    [*_each(content, lambda s: columns(s['name']) if s['name'] in counts else []), middle],
    'One band per subject: how many images have which score, each band scaled to its own highest '
    'bar; the line marks the median. Look for a long tail to the right (images that fail) and for '
    'a second hump.',
    counted='images',
    legend=False,
  )


def _distances(content: Content) -> Figure:
  by_name = {s['name']: s['distances'] for s in content['subjects']}
  shown = {name: of for name, of in by_name.items() if of.get('d_ys') is not None}
  points = lambda part: of_values((of.get(part) for of in shown.values()), range(len(shown)))
  return _rows(
    'Do samples disagree as much as readers do?',
    Axis('mean distance, 1 − IoU', low=0),
    shown,
    [Series(name, style, points(part), line=False) for part, (name, style) in PARTS.items()],
    'The energy distance is made of these three. Samples that cannot be told from readers have all '
    'marks together. A diamond left of the bar means too little variety, right of it too much; a '
    'dot far to the right means masks that fit no reader.',
  )


def _by_samples(content: Content) -> Figure:
  styles, series = look(content), []
  for estimator, dash in (('v', ''), ('u', '2 5')):
    for s in content['subjects']:
      of, style = s['ged_by_samples'], styles[s['name']]
      if of.get(estimator) is not None:
        style = style._replace(dash=dash, hollow=estimator == 'u')
        series.append(
          Series(f'{s["name"]} ({estimator})', style, of_values(of['n'], of[estimator]))
        )
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


def _costs(content: Content) -> dict[str, Figure]:
  """The main score against the operations of most samples, of several subjects."""
  main = content['main']
  known = [s for s in content['subjects'] if 'cost' in s and main]
  known = [s for s in known if s['scores'][main]['mean'] is not None]
  if len(known) < 2:
    return {}

  def point(subject: Any) -> list[Point]:
    of = subject['scores'][main]
    flops = [*subject['cost']['flops'].values()][-1] / 1e9
    return [Point(flops, of['mean'], low=value(of['low']), high=value(of['high']))]

  samples = [*known[0]['cost']['flops']][-1]
  shown = Figure(
    'Is it worth its price?',
    Axis(f'GFLOP for {samples} samples of an image', log=True),
    Axis(next(m['convention'] for m in content['metrics'] if m['name'] == main)),
    tuple(_each(dict(content) | {'subjects': known}, point)),
    caption='Further left costs less. A model is worth its operations where no other is both '
    'further left and better.',
  )
  return {'costs.svg': shown}


def _reliability(content: Content, subject: Mapping[str, Any]) -> Figure:
  series = [Series(RIGHT, DOTTED, (Point(0, 0), Point(1, 1)))]
  style, errors = look(content)[subject['name']], []
  for source, name in SOURCES.items():
    if of := subject['reliability'].get(source):
      pixels = of['pixels'] if source == 'mean' else ()
      points = of_values(of['confidence'], of['frequency'], pixels)
      drawn = style._replace(dash='2 5', hollow=True) if source == 'own' else style
      series.append(Series(name, drawn, points))
      errors.append(f'ECE {_ece(of):.4f} {name}')
  agreeing = 'agreeing' if len(content['data']['classes']) > 2 else 'marking it'
  return Figure(
    subject['name'], Axis('predicted probability', 0, 1), Axis(f'readers {agreeing}', 0, 1),
    tuple(series), caption='; '.join(errors), counted='pixels', size=(320, 280),
  )  # fmt: skip


def _ece(of: Mapping[str, Any]) -> float:
  rows = zip(of['confidence'], of['frequency'], of['pixels'], strict=True)
  return sum(abs(c - f) * n for c, f, n in rows if n) / (sum(of['pixels']) or 1)


def _flips(content: Content) -> dict[str, Figure]:
  """How often samples flip each class, use each of its names, and each combination of flips."""
  classes, modes = content['flips']['classes'], content['flips']['modes']
  names = [c[which] for c in classes for which in ('base', 'twin')]
  truth = [v for c in classes for v in (1 - c['share'], c['share'])]
  column = lambda values: of_values(values, range(len(values)))
  right = lambda values: Series(RIGHT, TICK, column(values))
  error = {
    s['name']: f'{s["name"]}: mean error {number(s["flips"]["error"])}' for s in content['subjects']
  }
  own = {s['name']: f'{s["name"]}, as it states itself' for s in content['subjects']}
  stated = _each(
    content,
    lambda s: column([s['flips']['stated'].get(n) for n in names]) if s['flips']['stated'] else [],
    own,
  )
  return {
    'flips.svg': _rows(
      'How often is each class flipped?',
      Axis('share of flips', 0, 1),
      [c['base'] for c in classes],
      [
        right([c['share'] for c in classes]),
        *_each(content, lambda s: column(s['flips']['flip_rates']), error),
      ],
      'Among the pixels of a class that samples call by either of its names, the share of the '
      "twin's; ticks where it should be.",
    ),
    'names.svg': _rows(
      'How often is each name used?',
      Axis('share of all pixels of the class', 0, 1),
      names,
      [
        right(truth),
        *_each(content, lambda s: column([*itertools.chain(*s['flips']['frequencies'])])),
        *(_hollow(s) for s in stated),
      ],
      'Share of all pixels of a class that samples call by either name; what misses from 1 is '
      'another class. Hollow: the probability that the method states itself, where the black-box '
      'prediction is right.',
    ),
    'modes.svg': _rows(
      'Does every combination of flips get its mass?',
      Axis('mass', low=0),
      modes,
      [right([*modes.values()]), *_each(content, lambda s: column(s['flips']['mode_masses']))],
      'Mass of every combination of renamed classes, by majority within each class, over the '
      'images that show all of them.',
    ),
  }


def _hollow(s: Series) -> Series:
  return Series(s.name, s.style._replace(hollow=True), s.points, line=False)
