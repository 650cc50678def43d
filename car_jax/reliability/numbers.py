"""How a study's numbers are written, and which of them are best."""

import math
from collections.abc import Mapping
from typing import Any

from car_jax.reliability.view import Metric, View, number
from car_jax.report import table


def places(view: View, metric: Metric) -> int:
  """Decimals that show a column: one more for a small score."""
  largest = max(map(abs, view.values(metric.name)), default=1.0)
  return (1 if metric.percent else 3) + (largest < 0.1)


def text(metric: Metric, value: float, digits: int, *, unit: bool = True) -> str:
  """'12.3 %' for a fraction that is shown in percent, else '0.123'; a dash where undefined.

  digits: after the point. unit False leaves out ' %'.
  """
  shown = table.number(metric.scale * value, digits)
  return f'{shown} %' if metric.percent and unit and shown != '–' else shown


def best(view: View, metric: Metric) -> set[tuple[str, str, str]]:
  """The cells with the best value of their set, all of them in a tie; none where alone."""
  if metric.better not in ('high', 'low'):
    return set()
  sign = 1 if metric.better == 'high' else -1
  by_set: dict[str, dict[tuple[str, str, str], float]] = {}
  for key in view.cells:
    value = view.value(*key, metric.name)
    if math.isfinite(value):
      by_set.setdefault(key[1], {})[key] = sign * value
  out = set()
  for values in by_set.values():
    top = max(values.values())
    if len(set(values.values())) > 1:
      out |= {key for key, v in values.items() if v == top}
  return out


def ends(metric: Metric, low: float, high: float, digits: int, joint: str) -> str:
  """'11.0 – 13.5' without units, or nothing where an end is undefined."""
  if not (math.isfinite(low) and math.isfinite(high)):
    return ''
  return joint.join(text(metric, v, digits, unit=False) for v in (low, high))


def temperatures(fit: Mapping[str, Any]) -> str:
  """'1.52', or the range of several: '0.91 – 2.30 (8)'."""
  values = [number(t) for t in fit.get('temperatures') or [] if t is not None]
  if not values:
    return '–'
  if len(values) == 1:
    return f'{values[0]:.2f}'
  return f'{min(values):.2f} – {max(values):.2f} ({len(values)})'


def warned(study: Mapping[str, Any]) -> int:
  return sum(bool(f.get('warnings')) for f in study.get('fits') or [])
