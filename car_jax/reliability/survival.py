"""Does the guarantee survive the shift? Losses of sets at thresholds that calibrate_on gave.

What is promised and what became of it, for study.json and its page. See guarantees.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from car_jax.metrics import conformal
from car_jax.metrics.conformal import Kept
from car_jax.reliability.guarantees import Guarantee
from car_jax.reliability.plan import Plan
from car_jax.reliability.study import Cell
from car_jax.reliability.view import View, mean, number
from car_jax.report.table import Cell as Text
from car_jax.report.table import Row, Table, share, span, table
from car_jax.report.table import number as shown

QUESTION = 'Does the guarantee survive the shift?'
TRIVIAL = 'trivial: every class'  # is in every set: nothing can be missed, and nothing is said
VERBS = {
  'holds': 'holds',
  'broken': 'is broken',
  'undecided': 'is undecided',
  TRIVIAL: 'is trivial (every class is in every set)',
}
MARKS = {'holds': '✓', 'broken': '✗', 'undecided': '?', TRIVIAL: TRIVIAL}
PROMISES = dict(
  miscoverage="sets lack the label of at most {} of an image's pixels, on average",
  balanced="sets lack the label of at most {} of a class's pixels, on average over the classes of "
  'an image and over images',
  fnr='masks of {classes} miss at most {} of its pixels in an image, on average',
)


def of_study(plan: Plan, cells: Sequence[Cell]) -> dict[str, Any]:
  """What study.json has of guarantees, and of each in every cell."""
  return dict(
    guarantees=[dict(name=n) | _about(g) for n, g in plan.guarantees.items()],
    guarantee_results=[entry for c in cells for entry in _of_cell(plan, c)],
  )


def _about(g: Guarantee) -> dict[str, Any]:
  foreground = ' or '.join(g.classes) or 'the foreground'
  text = PROMISES[g.loss].format(f'{100 * g.alpha:g} %', classes=foreground)
  return dict(loss=g.loss, alpha=g.alpha, classes=[*g.classes], about=text)


def _of_cell(plan: Plan, c: Cell) -> Iterable[dict[str, Any]]:
  for name, chosen in c.thresholds.items():
    losses, choice = c.counts.values(chosen.loss), chosen.choice
    if losses is None:  # of classes without a confidence
      continue
    kept = conformal.kept(
      losses,
      choice.alpha,
      groups=c.counts.group,
      calibration=chosen.losses,
      calibration_groups=chosen.groups,
      resamples=plan.config.resamples,
      seed=plan.config.seed,
    )
    yield c.place | dict(
      guarantee=name,
      threshold=choice.value,
      everything=(everything := choice.value <= 0),
      calibration=dict(images=choice.images, left_out=choice.left_out, loss=choice.risk),
      size=c.counts.value(chosen.size),
      **_kept(kept, everything),
    )


def _kept(kept: Kept, everything: bool) -> dict[str, Any]:
  value, low, high, images, skipped = kept.loss
  return dict(
    loss=dict(value=value, low=low, high=high),
    images=images,
    skipped=skipped,
    above=kept.share_above,
    gap=kept.gap,
    verdict=TRIVIAL if everything and kept.verdict else kept.verdict,
  )


def entries(view: View, guarantee: str) -> dict[tuple[str, str, str], dict[str, Any]]:
  """By model, calibrator and set, those with a verdict."""
  every = view.study.get('guarantee_results') or []
  mine = [e for e in every if e['guarantee'] == guarantee and e.get('verdict') in MARKS]
  return {(e['model'], e['calibrator'], e['set']): e for e in mine}


COLUMNS = ('loss', 'loss_low', 'loss_high', 'threshold', 'size', 'above', 'images', 'verdict')


def columns(view: View, guarantee: str) -> dict[tuple[str, str, str], tuple[Any, ...]]:
  """By model, calibrator and set, the values of COLUMNS: fractions, as in study.json."""
  every = [e for e in view.study.get('guarantee_results') or [] if e['guarantee'] == guarantee]
  loss = lambda e: (e['loss'][k] for k in ('value', 'low', 'high'))
  row = lambda e: (*loss(e), *(e[k] for k in COLUMNS[3:]))
  return {(e['model'], e['calibrator'], e['set']): row(e) for e in every}


def promises(view: View) -> list[dict[str, Any]]:
  """The guarantees that have been tried on a set."""
  return [g for g in view.study.get('guarantees') or [] if entries(view, g['name'])]


def tables(view: View) -> list[Table]:
  """For each guarantee the mean loss by model and set, marked; the terminal has them too."""
  out = []
  for g in promises(view):
    of = entries(view, g['name'])
    sets = [s for s in view.sets if any(s == where for _, _, where in of)]
    who = [*dict.fromkeys((m, c) for m, c, _ in of)]
    rows = [(*w, *(_marked(of.get((*w, s))) for s in sets)) for w in who]
    title = f'Mean loss under the guarantee {g["name"]}'
    about = f'{g["about"]}; in %. ✓ holds, ✗ broken, ? undecided; trivial is no success'
    out.append(table(title, ('model', 'calibrator', *sets), rows, words=(0, 1), about=about))
  return out


def _marked(entry: Mapping[str, Any] | None) -> str:
  if entry is None:
    return '–'
  return f'{share(entry["loss"]["value"], unit=False)} {MARKS[entry["verdict"]]}'


def details(view: View) -> Table | None:
  """A row for each guarantee and cell: threshold, loss with its interval, size of sets."""
  rows = []
  for g in promises(view):
    for (model, way, name), e in entries(view, g['name']).items():
      loss = e['loss']
      size = share(e['size']) if g['loss'] == 'fnr' else shown(e['size'], 2)
      cells = (
        Text(model, f'{name} · {way}'),
        Text(g['name']),
        Text(shown(e['threshold'], 4)),
        Text(share(loss['value']), span((loss['low'], loss['high']), 1, scale=100)),
        Text(size),
        Text(share(e['above'])),
        Text(f'{e["images"]:,}'),
        Text(' '.join(dict.fromkeys((MARKS[e['verdict']], e['verdict'])))),
      )
      rows.append(Row(cells, dict(model=model, set=name, calibrator=way)))
  head = ['model, set, calibrator', 'guarantee', 'threshold', 'mean loss', 'size of sets']
  head += ['images above alpha', 'images', 'the guarantee']
  return table('thresholds and sets', head, rows, words=(0, 1, 7)) if rows else None


def findings(view: View) -> list[str]:
  """Of each guarantee, before recalibration, on the in-domain set and the strongest shift."""
  return [f'{QUESTION} {line}' for g in promises(view) if (line := _finding(view, g))]


def _finding(view: View, g: Mapping[str, Any]) -> str:
  of, parts = entries(view, g['name']), []
  for name in dict.fromkeys(filter(None, (view.reference, view.strongest))):
    here = [e for (_, way, where), e in of.items() if where == name and way == view.plain]
    if not here:
      continue
    count = {v: sum(e['verdict'] == v for e in here) for v in MARKS}
    said = [f'{VERBS[v]} for {n}' for v, n in count.items() if n]
    models = f'of {len(here)} model{"s" if len(here) > 1 else ""}'
    loss = share(mean(number(e['loss']['value']) for e in here))
    parts.append(f'on {name} this {", ".join(said)} {models}, with a mean loss of {loss}')
  opening = f'{g["about"][:1].upper()}{g["about"][1:]}'
  return f'{opening}: {"; ".join(parts)}.' if parts else ''


def covers(view: View) -> list[str]:
  """How the tables are to be read: what is promised and what is not, in paragraphs."""
  if not promises(view):
    return []
  return [WHAT, *(_of_images(view, g) for g in promises(view)), NOT, MARKED]


WHAT = (
  'For each model and calibrator a threshold was chosen on labelled images: the set of a pixel is '
  'the likeliest class and all others whose probability reaches it (of fnr: the mask is all pixels '
  'whose foreground reaches it). It was chosen so that the expected loss of the next image is at '
  'most alpha, by conformal risk control (arXiv 2208.02814). That is exact, whatever the model, as '
  'long as the images are exchangeable: nothing but chance tells those of a set from those that '
  'the threshold was chosen on. Other weather, another camera or another city tells them apart, '
  'and then nothing is promised any more: what became of it is what the table shows. Thresholds '
  'lie on a grid of steps of 1/1024 that was fixed before, and are taken on its safe side: sets '
  'are by that little larger than need be, and the guarantee is not weakened.'
)
NOT = (
  'What is not promised: the loss of each image, class or object; that of these very calibration '
  'images, since alpha is a mean over draws of calibration and test images together. The unit is '
  'the image, so nothing is promised either where every set has scenes or patients of its own. A '
  'calibrator that was fitted to the same images has seen them, so for it the guarantee is only '
  'nearly exact; one from a file that was fitted to other images has not.'
)
MARKED = (
  '✓ holds: the mean loss is at most alpha. ✗ broken: even the lower end of its 95 % interval is '
  'above. ? undecided: it is above alpha, but other images might give less, or there are too few '
  'to tell. The interval is over draws of the images of the set and of those that the threshold '
  'was chosen on. Trivial: the threshold is 0, so that every class is in every set; nothing can be '
  'missed then, and it counts neither as kept nor as broken.'
)


def _of_images(view: View, g: Mapping[str, Any]) -> str:
  """How many images a guarantee's thresholds rest on, and what that allows."""
  every = [e['calibration'] for e in entries(view, g['name']).values()]
  images, left_out = (max(c[k] for c in every) for k in ('images', 'left_out'))
  least = conformal.least_alpha(images)
  left = f' ({left_out:,} had nothing to find and were left out)' if left_out else ''
  few = (
    f' That allows an alpha of {least:.2g} at least, so every class is in every set.'
    if g['alpha'] < least
    else ''
  )
  return f'{g["name"]}: {g["about"]}; chosen on {images:,} images{left}.{few}'
