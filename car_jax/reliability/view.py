"""A study, which is plain data, looked up by name. Any part of it may be missing or null."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from car_jax.metrics import base, catalogue
from car_jax.metrics.texts import ABOUT
from car_jax.report import table

ACCURACY = ('miou', 'pixel_accuracy')
SETTING = catalogue.Setting(class_names=('',), one_label=True)


class Metric(NamedTuple):
  """A score in words. better: 'high', 'low', or '' where neither end is. `percent`: values are
  fractions that are shown times 100."""

  name: str
  title: str
  better: str = ''
  percent: bool = False
  group: str = 'other'
  about: str = ''

  @classmethod
  def of(cls, name: str, about: base.About | None = None) -> 'Metric':
    """about: the library's words on a score; None: those of its name, such as auroc[entropy]."""
    a = about or ABOUT.get(name) or catalogue.metric(name, SETTING).about
    return cls(name, a.title, a.better, a.percent, a.group, a.explanation)

  @property
  def scale(self) -> float:
    return 100.0 if self.percent else 1.0

  @property
  def heading(self) -> str:
    """'ECE, %'"""
    return f'{self.title}, %' if self.percent else self.title

  def text(self, value: float, digits: int, *, unit: bool = True) -> str:
    """'12.3 %' for a fraction that is shown in percent, else '0.123'; a dash where undefined.

    digits: after the point. unit False leaves out ' %'.
    """
    shown = table.number(self.scale * value, digits)
    return f'{shown} %' if self.percent and unit and shown != '–' else shown


def number(value: Any) -> float:
  """A missing value is nan."""
  return float('nan') if value is None else float(value)


def mean(values: Iterable[float]) -> float:
  """Of the values that are defined; nan where none is."""
  known = [v for v in values if not math.isnan(v)]
  return sum(known) / len(known) if known else float('nan')


class View:
  """The parts of one study. `plain` is the first calibrator: the model's own confidences."""

  def __init__(self, study: dict[str, Any]):
    self.study = study
    self._values: dict[str, list[float]] = {}  # asked for by every chart
    self.cells = {_key(c): c for c in study.get('cells') or []}
    self.curves = {_key(c): c for c in study.get('curves') or []}
    self.models = _about(study, 'models', (k[0] for k in self.cells))
    self.sets = _about(study, 'sets', (k[1] for k in self.cells))
    self.calibrators = _about(study, 'calibrators', (k[2] for k in self.cells)) or {'none': {}}
    self.plain = next(iter(self.calibrators))
    listed = (Metric(**_known_fields(m)) for m in study.get('metrics') or [])
    self.described = {m.name: m for m in listed}
    used = {m for k, c in self.cells.items() for m in c.get('values') or {} if self._has(k, m)}
    unlisted = sorted(used - {*self.described})
    shown = [m for m in self.described.values() if m.name in used] + [*map(self.about, unlisted)]
    order = [*dict.fromkeys(m.group for m in shown)]
    self.metrics = {m.name: m for m in sorted(shown, key=lambda m: order.index(m.group))}
    self.accuracy = next((m for m in ACCURACY if m in self.metrics), '')
    self.reference = self._reference()
    self.strongest = self._strongest()

  def about(self, name: str) -> Metric:
    """The study's words on a score; one that it does not describe has its bare name."""
    return self.described.get(name) or Metric(name, name)

  def entry(self, model: str, dataset: str, calibrator: str, metric: str) -> dict[str, Any]:
    """value, low, high and bound, as far as the study has them."""
    cell = self.cells.get((model, dataset, calibrator)) or {}
    estimate = (cell.get('values') or {}).get(metric)
    return estimate if isinstance(estimate, dict) else {'value': estimate}

  def value(self, model: str, dataset: str, calibrator: str, metric: str) -> float:
    return number(self.entry(model, dataset, calibrator, metric).get('value'))

  def interval(self, model: str, dataset: str, calibrator: str, metric: str) -> tuple[float, float]:
    estimate = self.entry(model, dataset, calibrator, metric)
    return number(estimate.get('low')), number(estimate.get('high'))

  def _has(self, key: tuple[str, str, str], metric: str) -> bool:
    return not math.isnan(self.value(*key, metric))

  def over_models(self, dataset: str, calibrator: str, metric: str) -> float:
    return mean(self.value(m, dataset, calibrator, metric) for m in self.models)

  def values(self, metric: str) -> list[float]:
    """All defined values and interval ends: what an axis has to hold."""
    if metric not in self._values:
      out = []
      for key in self.cells:
        out += [self.value(*key, metric), *self.interval(*key, metric)]
      self._values[metric] = [v for v in out if not math.isnan(v)]
    return self._values[metric]

  def places(self, metric: Metric) -> int:
    """Decimals that show a column: one more for a small score."""
    largest = max(map(abs, self.values(metric.name)), default=1.0)
    return (1 if metric.percent else 3) + (largest < 0.1)

  def best(self, metric: Metric) -> set[tuple[str, str, str]]:
    """The cells with the best value of their set, all of them in a tie; none where alone."""
    pick = {'high': max, 'low': min}.get(metric.better)
    by_set: dict[str, dict[tuple[str, str, str], float]] = {}
    for key in self.cells if pick else ():
      value = self.value(*key, metric.name)
      if math.isfinite(value):
        by_set.setdefault(key[1], {})[key] = value
    out = set()
    for values in by_set.values():
      if pick and len({*values.values()}) > 1:
        out |= {key for key, v in values.items() if v == pick(values.values())}
    return out

  def shift(self, dataset: str) -> float:
    return number(self.sets[dataset].get('shift'))

  def condition(self, dataset: str) -> str:
    return str(self.sets[dataset].get('condition') or dataset)

  def single_sets(self) -> list[str]:
    """Without pools, whose sets are there themselves."""
    return [s for s, about in self.sets.items() if not about.get('pool')]

  def shifted(self) -> list[str]:
    return [s for s in self.single_sets() if self.sets[s].get('role') == 'shifted']

  def lines(self) -> dict[str, list[str]]:
    """Condition -> its sets by growing shift, begun by the in-domain set where that has one."""
    out: dict[str, list[str]] = {}
    for name in self.shifted():
      if not math.isnan(self.shift(name)):
        out.setdefault(self.condition(name), []).append(name)
    start = [self.reference] if self.reference in self.sets else []
    start = [s for s in start if not math.isnan(self.shift(s))]
    return {c: start + sorted(names, key=self.shift) for c, names in out.items()}

  def _reference(self) -> str:
    inside = [s for s, about in self.sets.items() if about.get('role') == 'in-domain']
    return next(iter(inside or self.sets), '')

  def _strongest(self) -> str:
    """The shifted set of the largest shift; among equals the one of the lowest accuracy."""

    def rank(name: str) -> tuple[float, float]:
      shift, accuracy = self.shift(name), self.over_models(name, self.plain, self.accuracy)
      return (-1.0 if math.isnan(shift) else shift), (0 if math.isnan(accuracy) else -accuracy)

    names = [s for s in self.shifted() if s != self.reference]
    return max(names, key=rank) if names else ''


def _known_fields(entry: dict[str, Any]) -> dict[str, Any]:
  given = {k: v for k, v in entry.items() if k in Metric._fields and v is not None}
  return {'title': entry['name']} | given


def _key(entry: dict[str, Any]) -> tuple[str, str, str]:
  return entry['model'], entry['set'], entry['calibrator']


def _about(study: dict[str, Any], part: str, used: Iterable[str]) -> dict[str, dict[str, Any]]:
  """Name -> entry, in the study's order; names that only cells know come last."""
  out = {e['name']: e for e in study.get(part) or []}
  for name in used:
    out.setdefault(name, {'name': name})
  return out
