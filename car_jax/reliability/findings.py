"""The findings of a study, in plain sentences drawn from its numbers."""

import dataclasses
import math
from collections.abc import Sequence

from car_jax.evaluate import order
from car_jax.evaluate.order import Ranking
from car_jax.reliability import failing, ranks, survival
from car_jax.reliability.view import View, mean, number
from car_jax.report.table import joined

NAMED = 3  # fits with a warning
WORSE = 0.45  # an AUROC below which the order is rather the other way round


def findings(view: View) -> list[str]:
  """The fall under shift, who holds up, ranks, recalibration, guarantees, known errors, the
  unknown, warnings, what is unusual in the labels."""
  lines = [
    _fall(view),
    _apart(view),
    _leaders(view),
    *_orders(view),
    *_seeds(view),
    ranks.finding(view),
    *_recalibration(view),
    *survival.findings(view),
    _errors(view),
    failing.finding(view),
    _unknown(view),
    _image_level(view),
    _warnings(view),
    *(view.study.get('remarks') or ()),
  ]
  return [line for line in lines if line]


def _show(view: View, metric: str, value: float) -> str:
  m = view.metrics[metric]
  return m.text(value, view.places(m))


def _whose(view: View, models: Sequence[str]) -> str:
  return f' of {models[0]}' if len(models) == 1 else f' (mean of {len(models)} models)'


def _pair(view: View, metric: str, calibrator: str) -> tuple[list[str], float, float]:
  """Models that have `metric` on both sets, and its mean over them in-domain and shifted."""
  both: dict[str, list[float]] = {}
  for model in view.models if metric in view.metrics and view.strongest else ():
    ends = [view.value(model, s, calibrator, metric) for s in (view.reference, view.strongest)]
    if not any(map(math.isnan, ends)):
      both[model] = ends
  return [*both], mean(a for a, _ in both.values()), mean(b for _, b in both.values())


def _fall(view: View) -> str:
  parts = []
  for metric in (view.accuracy, 'ece'):
    models, start, end = _pair(view, metric, view.plain)
    if not models:
      continue
    title = view.metrics[metric].title + _whose(view, models)
    first, last = _show(view, metric, start), _show(view, metric, end)
    word = 'falls' if end < start else 'rises'
    change = f'stays at {last}' if first == last else f'{word} from {first} to {last}'
    parts.append(f'{title} {change}')
  if not parts:
    return ''
  sets = f'From {view.reference} (in-domain) to {view.strongest} (the strongest shift), '
  return f'{sets}{" and ".join(parts)}.'


def _apart(view: View) -> str:
  """How many models' intervals of the calibration error keep apart on the two sets."""
  if 'ece' not in view.metrics or not view.strongest:
    return ''
  known, apart = 0, 0
  for model in view.models:
    ends = [view.interval(model, s, view.plain, 'ece') for s in (view.reference, view.strongest)]
    if any(math.isnan(v) for pair in ends for v in pair):
      continue
    known += 1
    apart += ends[0][1] < ends[1][0] or ends[1][1] < ends[0][0]
  if not known:
    return ''
  who = f'{apart} of {known} models' if known > 1 else ('this model' if apart else 'no model')
  return f'The 95 % intervals of the two calibration errors lie apart for {who}.'


def _leaders(view: View) -> str:
  if len(view.models) < 2 or not view.strongest:
    return ''
  parts = []
  for metric, word in ((view.accuracy, 'most accurate'), ('ece', 'best calibrated')):
    if metric not in view.metrics:
      continue
    values = {m: view.value(m, view.strongest, view.plain, metric) for m in view.models}
    values = {m: v for m, v in values.items() if not math.isnan(v)}
    if values:
      pick = max if view.metrics[metric].better == 'high' else min
      best = pick(values.values())
      names = [m for m, v in values.items() if v == best]
      is_ = 'are equally' if names[1:] else 'is'
      shown = _show(view, metric, best)
      the = '' if names[1:] else 'the '
      parts.append(f'{joined(names)} {is_} {the}{word} ({view.metrics[metric].title} {shown})')
  return f'On {view.strongest}, before recalibration, {" and ".join(parts)}.' if parts else ''


def _orders(view: View) -> list[str]:
  """How sure the first place is by accuracy, on the in-domain set and the strongest shift."""
  shown = [s for s in dict.fromkeys((view.reference, view.strongest)) if s]
  entries = {(r['set'], r['metric']): r for r in view.study.get('rankings') or []}
  here = [(s, entries[s, view.accuracy]) for s in shown if (s, view.accuracy) in entries]
  title = lambda s: f'{view.metrics[view.accuracy].title} on {s}'
  keys = {f.name for f in dataclasses.fields(Ranking)}
  kept = [(s, Ranking(**{k: v for k, v in e.items() if k in keys})) for s, e in here]
  return [order.sentence(title(s), r) for s, r in kept]


def _seeds(view: View) -> list[str]:
  """The spread over trainings, by accuracy in-domain."""
  here = [e for e in view.study.get('seeds') or [] if e['set'] == view.reference]
  return [
    f'{e["model"]}, {len(e["values"])} trainings: {view.metrics[e["metric"]].title} on {e["set"]} '
    f'{_show(view, e["metric"], e["mean"])}, standard deviation '
    f'{_show(view, e["metric"], number(e["deviation"]))}.'
    for e in here
    if e['metric'] == view.accuracy
  ]


def _recalibration(view: View) -> list[str]:
  """The calibrator that is best in-domain, and the best under shift where that is another."""
  by_calibrator = {c: _pair(view, 'ece', c) for c in view.calibrators}
  by_calibrator = {c: f for c, f in by_calibrator.items() if f[0]}
  plain = by_calibrator.pop(view.plain, None)
  if not plain or not by_calibrator:
    return []
  inside = min(by_calibrator, key=lambda c: by_calibrator[c][1])
  outside = min(by_calibrator, key=lambda c: by_calibrator[c][2])
  first = _change(view, plain[1], by_calibrator[inside][1]) + ' in-domain'
  second = _change(view, plain[2], by_calibrator[inside][2]) + f' on {view.strongest}'
  # 'lowers the ECE from .. in-domain and from .. on ..', said once where both go the same way.
  for verb in ('lowers the ECE', 'raises the ECE'):
    if first.startswith(verb):
      second = second.removeprefix(verb).lstrip()
  lines = [f'Recalibration by {inside} {first} and {second}.']
  if outside != inside:
    value = _show(view, 'ece', by_calibrator[outside][2])
    lines.append(f'On {view.strongest} {outside} does best, with an ECE of {value}.')
  start, end = plain[1], by_calibrator[outside][2]
  if end > 1.5 * start > 0:
    lines.append(
      f'Even the best recalibrated ECE there is {end / start:.1f} times the in-domain ECE '
      'without recalibration.'
    )
  return lines


def _change(view: View, before: float, after: float) -> str:
  first, last = _show(view, 'ece', before), _show(view, 'ece', after)
  if first == last:
    return f'leaves the ECE at {last}'
  return f'{"lowers" if after < before else "raises"} the ECE from {first} to {last}'


def _grade(auroc: float) -> str:
  if auroc >= 0.9:
    return 'well'
  if auroc >= 0.75:
    return 'partly'
  if auroc >= 0.6:
    return 'poorly'
  return 'hardly better than chance' if auroc >= WORSE else 'worse than chance'


def _errors(view: View) -> str:
  models, start, end = _pair(view, 'auroc', view.plain)
  if not models:
    return ''
  return (
    f'Does it know when it is wrong? In-domain {_grade(start)}, shifted {_grade(end)}: of a wrong '
    f'and a right pixel, the wrong one is less confident in {_show(view, "auroc", start)} of the '
    f'pairs in-domain and in {_show(view, "auroc", end)} on {view.strongest}; 50 % is chance.'
  )


def _unknown(view: View) -> str:
  if 'unknown_auroc' not in view.metrics:
    return ''
  by_set = {s: view.over_models(s, view.plain, 'unknown_auroc') for s in view.single_sets()}
  by_set = {s: v for s, v in by_set.items() if not math.isnan(v)}
  if not by_set:
    return ''
  value, where = mean(by_set.values()), next(iter(by_set))
  where = where if len(by_set) == 1 else f'{len(by_set)} sets'
  return (
    f'Does it notice unknown objects? {_grade(value).capitalize()}: their pixels are less '
    f'confident than known ones in {_show(view, "unknown_auroc", value)} of the pairs (mean over '
    f'models on {where}); 50 % is chance.'
  )


def _image_level(view: View) -> str:
  single, every = view.single_sets(), view.study.get('image_ood') or []
  rows = [r for r in every if r.get('calibrator') == view.plain and r.get('other') in single]
  value = mean(number(r.get('auroc')) for r in rows)
  if math.isnan(value):
    return ''
  surer = '' if value >= WORSE else ' (it is surer of images from elsewhere)'
  return (
    'Does it notice that a whole image is from elsewhere? '
    f'{_grade(value).capitalize()}{surer}: AUROC {100 * value:.1f} %, mean over models and sets.'
  )


def _warnings(view: View) -> str:
  fits = view.study.get('fits') or []
  warned = [f for f in fits if f.get('warnings')]
  if not warned:
    return ''
  texts = [f'{f["model"]}, {f["calibrator"]}: {", ".join(map(str, f["warnings"]))}' for f in warned]
  more = f'; {len(texts) - NAMED} more' if texts[NAMED:] else ''
  return (
    f'{len(warned)} of {len(fits)} calibrator fits came with a warning: '
    f'{"; ".join(texts[:NAMED])}{more}.'
  )
