"""Are the more accurate models better calibrated? Rank correlations over models, on each set.

Of accuracy and ECE before recalibration, which the page also draws against each other, as RELIS
does (arXiv 2303.11298). Coefficients and intervals are those of correlation.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from car_jax.reliability import correlation
from car_jax.reliability.plan import PLAIN, Plan
from car_jax.reliability.study import Cell
from car_jax.reliability.view import ACCURACY, View, number
from car_jax.report import table

QUESTION = 'Are the more accurate models better calibrated?'
SIDES = ('accuracy', 'calibration')
COEFFICIENTS = ('spearman', 'kendall')
UNDECIDED = 'undecided'
RARE = 0.05  # share of orders by chance from which on a set decides nothing


def of_study(plan: Plan, cells: Sequence[Cell]) -> list[dict[str, Any]]:
  """For each set and pool what study.json has of it; none for fewer models than correlate."""
  accuracy = next((a for a in ACCURACY if a in plan.measures), '')
  if not accuracy or 'ece' not in plan.measures or len(plan.models) < correlation.LEAST:
    return []
  chosen = [accuracy, 'ece']
  at = {(c.model, c.set): c for c in cells if c.calibrator == PLAIN}
  out = []
  for name in (*plan.sets, *plan.pools):
    scores = {m: correlation.scored([at[m, name]], chosen, plan) for m in plan.models}
    points = {m: tuple(of[k] for k in chosen) for m, of in scores.items()}
    entry = correlation.correlated(points, sides=SIDES, seed=plan.config.seed)
    entry |= dict(set=name, measures=chosen, chance=by_chance(entry['models']))
    out.append(entry)
  return out


def by_chance(points: Sequence[Mapping[str, Any]]) -> float:
  """How often models in a random order would agree or disagree as much by Kendall's tau.

  That is the p value of its two-sided test, from all orders where no scores are equal. Bootstrap
  intervals of few models are too narrow: of four they leave out 0 where every third order would do.
  """
  x, y = ([m[side]['value'] for m in points] for side in SIDES)
  return float(stats.kendalltau(x, y).pvalue) if len(points) >= correlation.LEAST else math.nan


def finding(view: View) -> str:
  """Of the in-domain set and the strongest shift; '' where neither has a coefficient."""
  of_set = {e['set']: e for e in entries(view)}
  shown = [of_set[s] for s in dict.fromkeys((view.reference, view.strongest)) if s in of_set]
  if not shown:
    return ''
  parts = [f'on {e["set"]} {_coefficients(e)}: {verdict(e)}' for e in shown]
  every = [verdict(of_set[s]) for s in view.single_sets() if s in of_set]
  sure = sum(not v.startswith(UNDECIDED) for v in every)
  decided = f' Of all {len(every)} sets, {sure or "none"} {"is" if sure < 2 else "are"} decided.'
  bracket = ' In brackets 95 % intervals over models and images.' if any(map(_ends, shown)) else ''
  return (
    f'{QUESTION} Rank correlation of {_titles(view, shown[0])} over {_count(shown)} models, before '
    f'recalibration, negative if they are: {"; ".join(parts)}.{decided}{bracket}'
  )


def entries(view: View) -> list[dict[str, Any]]:
  """Those of the study that have coefficients."""
  return [e for e in view.study.get('ranks') or [] if not math.isnan(_values(e)[0])]


def as_table(view: View) -> table.Table | None:
  """A row for each set, in brackets the interval over models and images; none for few models."""
  rows = [
    [
      e['set'],
      str(len(e['models'])),
      *(_text(e, k) for k in COEFFICIENTS),
      _chance(e),
      conclusion(e),
    ]
    for e in entries(view)
  ]
  head = ('set', 'models', *(k.title() for k in COEFFICIENTS), 'by chance', 'what it says')
  return table.table(QUESTION, head, rows, words=(0, 5)) if rows else None


def conclusion(entry: Mapping[str, Any]) -> str:
  """What a row says, and what is missing of it."""
  missing = correlation.remarks(entry)
  return '; '.join(filter(None, [verdict(entry), missing]))


def verdict(entry: Mapping[str, Any]) -> str:
  """Which way the intervals of both coefficients point, if they do and it is rare by chance."""
  ends = _ends(entry)
  if not ends:
    return f'{UNDECIDED}, without an interval'
  if number(entry['chance']) >= RARE and not any(low <= 0 <= high for low, high in ends):
    return f'{UNDECIDED}, not rare by chance'
  if all(high < 0 for _, high in ends):
    return 'the more accurate are better calibrated'
  if all(low > 0 for low, _ in ends):
    return 'the more accurate are worse calibrated'
  return f'{UNDECIDED}, an interval holds 0'


def covers(view: View) -> str:
  """How the coefficients are to be read: what the intervals cover and what they do not."""
  shown = entries(view)
  count, resamples = _count(shown), view.study.get('resamples')
  times = f' {resamples:,} times' if resamples else ''
  return (
    f'Spearman and Kendall (tau-b): how alike the orders of {count} models by '
    f'{_titles(view, shown[0])} are, before recalibration; 1 is the same, −1 reversed. '
    'Negative: the more accurate a model, the smaller its calibration error. In brackets 95 % '
    'intervals: models were drawn again with replacement, and images or scenes with '
    f'them{times}. They cover what other models of the same sorts and other images of the same '
    'sets might show, as if models had been drawn at random. They do not cover other trainings '
    'of these models, sorts of models and sets that are not here, or that several sets were '
    f'looked at. Of {count} models they are rough and, away from 0, too narrow: one that leaves '
    'out 0 counts only where orders that agree or disagree as much (by Kendall) come in less '
    f'than {100 * RARE:.0f} % of all orders by chance. Ranks do not say how far models are '
    'apart, nor what causes what.'
  )


def _titles(view: View, entry: Mapping[str, Any]) -> str:
  return ' and '.join(view.about(m).title for m in entry['measures'])


def _count(shown: Sequence[Mapping[str, Any]]) -> str:
  """'6', or '5 to 6' where a model lacks scores on some sets."""
  counts = sorted({len(e['models']) for e in shown})
  return f'{counts[0]}' if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'


def _values(entry: Mapping[str, Any]) -> list[float]:
  return [number(entry['coefficients'][k]['value']) for k in COEFFICIENTS]


def _ends(entry: Mapping[str, Any]) -> list[tuple[float, float]]:
  """The interval over models of each coefficient; none where one is undefined."""
  pairs = [tuple(map(number, entry['coefficients'][k]['models'])) for k in COEFFICIENTS]
  return [] if any(math.isnan(v) for pair in pairs for v in pair) else [(a, b) for a, b in pairs]


def _text(entry: Mapping[str, Any], coefficient: str) -> str:
  of = entry['coefficients'][coefficient]
  span = table.span(of['models'], 2)
  return f'{table.number(of["value"], 2)}{f" ({span})" if span else ""}'


def _chance(entry: Mapping[str, Any]) -> str:
  return table.share(entry['chance'])


def _coefficients(entry: Mapping[str, Any]) -> str:
  return ', '.join(f'{k.title()} {_text(entry, k)}' for k in COEFFICIENTS)
