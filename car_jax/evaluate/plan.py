"""What an evaluation's config asks for, made exact."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from car_jax import options
from car_jax.errors import UserError
from car_jax.evaluate.options import MOST_SAMPLES, Evaluation
from car_jax.metrics import catalogue
from car_jax.metrics.base import Metric
from car_jax.metrics.of_samples import OfSamples, main_of


@dataclasses.dataclass(frozen=True)
class Plan:
  """The metrics, and the number of samples that serves all of them."""

  metrics: tuple[Metric, ...]
  samples: int
  chunk: int
  flips: tuple[Any, ...] = ()  # metrics.flips.Flip of the data set
  ignore: int | None = None  # its label of pixels that nobody knows

  @property
  def main(self) -> OfSamples | None:
    return main_of(self.metrics)


def report_spec(config: Any) -> dict[str, Any]:
  """config.report with its split. Raises UserError for an unknown key."""
  spec = options.completed(Evaluation, dict(config.report), 'report.')
  return spec | {'split': spec['split'] or 'validation'}


def plan(spec: Mapping[str, Any], info: Any) -> Plan:
  """The spec of an evaluation (keys of Evaluation) on data of `info` (DataInfo).

  Raises UserError for an unknown key, metric, option or class, with the nearest known one.
  """
  full = options.completed(Evaluation, dict(spec))
  numbers = [n for name in full['metrics'] if (n := catalogue.number_of(str(name))) is not None]
  samples = max([full['samples'], *numbers])
  if min([samples, *numbers]) < 1 or samples > MOST_SAMPLES:
    wrong = min([samples, *numbers]) if samples <= MOST_SAMPLES else samples
    raise UserError(f'{wrong} samples of an evaluation; it is 1 to {MOST_SAMPLES:,}')
  setting = catalogue.Setting(
    class_names=tuple(map(str, info.class_names)),
    data=info.name,
    ignore=info.ignore_label,
    flips=info.flips,
    samples=samples,
    **{k: full[k] for k in ('classes', 'absent', 'ignored', 'bins')},
  )
  made = catalogue.metrics(full['metrics'], setting)
  return Plan(made, samples, full['chunk'], info.flips, info.ignore_label)
