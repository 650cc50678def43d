"""How a study's numbers are written, and which of them are best."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from car_jax.reliability.legend import Metric
from car_jax.reliability.view import View, number


def places(view: View, metric: Metric) -> int:
  """Decimals that show a column: one more for a small score."""
  largest = max(map(abs, view.values(metric.name)), default=1.0)
  return (1 if metric.percent else 3) + (largest < 0.1)


def text(metric: Metric, value: float, digits: int, *, unit: bool = True) -> str:
  """'12.3 %' for a fraction that is shown in percent, else '0.123'; a dash where undefined.

  digits: after the point. unit False leaves out ' %'.
  """
  if not math.isfinite(value):
    return '–'
  shown = f'{100 * value if metric.percent else value:.{digits}f}'.replace('-', '−')
  return f'{shown} %' if metric.percent and unit else shown


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


class Column(NamedTuple):
  """A metric with what one needs to write its values; worked out once for all rows."""

  metric: Metric
  digits: int
  winners: set[tuple[str, str, str]]

  def text(self, value: float) -> str:
    return text(self.metric, value, self.digits)

  def ends(self, low: float, high: float, joint: str) -> str:
    """'11.0 – 13.5' without units, or nothing where an end is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
      return ''
    return joint.join(text(self.metric, v, self.digits, unit=False) for v in (low, high))


def columns(view: View) -> list[Column]:
  return [Column(m, places(view, m), best(view, m)) for m in view.metrics.values()]


def temperatures(fit: dict[str, Any]) -> str:
  """'1.52', or the range of several: '0.91 – 2.30 (8)'."""
  values = [number(t) for t in fit.get('temperatures') or [] if t is not None]
  if not values:
    return '–'
  if len(values) == 1:
    return f'{values[0]:.2f}'
  return f'{min(values):.2f} – {max(values):.2f} ({len(values)})'


def share(value: Any, digits: int = 1) -> str:
  value = number(value)
  return f'{100 * value:.{digits}f} %' if math.isfinite(value) else '–'


def fits(study: Mapping[str, Any]) -> Iterator[list[str]]:
  """Model, calibrator, set, temperature, NLL and ECE before and after, warnings of every fit."""
  nats = lambda value: f'{number(value):.4f}' if math.isfinite(number(value)) else '–'
  for fit in study.get('fits') or []:
    who = [str(fit.get(k) or '') for k in ('model', 'calibrator', 'set')]
    nll = ' → '.join(nats(fit.get(k)) for k in ('nll_before', 'nll_after'))
    ece = ' → '.join(share(fit.get(k), 2) for k in ('ece_before', 'ece_after'))
    yield [*who, temperatures(fit), nll, ece, '; '.join(map(str, fit.get('warnings') or []))]


IMAGE_LEVEL = ('model', 'calibrator', 'known', 'other', 'score', 'AUROC ↑', 'AUPR ↑', 'FPR95 ↓')


def image_level(study: Mapping[str, Any]) -> Iterator[list[str]]:
  """A row under IMAGE_LEVEL for each comparison of whole images of two sets."""
  for r in study.get('image_ood') or []:
    who = [str(r.get(k) or '') for k in IMAGE_LEVEL[:5]]
    yield [*who, *(share(r.get(k)) for k in ('auroc', 'aupr', 'fpr95'))]


def warned(study: dict[str, Any]) -> int:
  return sum(bool(f.get('warnings')) for f in study.get('fits') or [])
