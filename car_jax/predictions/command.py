"""What `car-jax score` does: anybody's files -> the readers' report."""

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import folders, paths, sharding
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, report
from car_jax.evaluate.harness import Evaluator
from car_jax.evaluate.options import Evaluation
from car_jax.evaluate.results import Results
from car_jax.metrics import catalogue
from car_jax.options import Group
from car_jax.predictions.dataset import Dataset
from car_jax.report import table

ABSENT = ('absent=1', 'absent=skip')
LISTED = 8  # classes at most that have pair scores of their own
OF_PIXELS = ('adaptive_ece', 'ks', 'auroc', 'aupr_error', 'fpr95', 'prr', 'aurc')


@dataclasses.dataclass(frozen=True)
class Scoring(Group):
  """What --config.KEY=VALUE may change of a report on predictions made elsewhere."""

  report: Evaluation = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """What is scored, and by which conventions."""
  seed: int = 0
  """Of the readers that are drawn."""


def metrics(data: Dataset) -> tuple[str, ...]:
  """Every score that the predictions have, by all conventions that the literature reports.

  Distances between maps are left out where each image has one prediction and one label: there
  `dice_max` is their Dice. Pairs by single classes are there from three classes on.
  """
  several, spread = data.samples > 1 or data.info.readers > 1, ['v']
  if data.samples > 1 and data.info.readers > 1:
    spread.append('u')
  out = ['miou']
  if several:
    out = [f'ged[{e},{a}]' for e, a in itertools.product(spread, ABSENT)] + ['ged[v,dice]']
    out += ['ged[v,absent=0]', *(f'hm_iou[{a}]' for a in ABSENT)]
    out += [f'dice_max[{best}{a}]' for best in ('', 'best=readers,') for a in ABSENT]
    out += [f'dice_match[{a}]' for a in ABSENT if data.samples >= data.info.readers]
    out += [f'crps_area[{e}]' for e in ('vu' if data.samples > 1 else 'v')]
    out += [f'diversity[{e}]' for e in spread if data.samples > 1]
    out += ['miou']
  else:
    out.append('dice_max')
  if data.info.num_classes > 2:
    some = range(data.info.num_classes) if data.info.num_classes <= LISTED else ()
    of = ['fg', *(f'classes={k}' for k in some)]
    kinds = ('ged[v,{}]', 'hm_iou[{}]', 'dice_max[{}]') if several else ('dice_max[{}]',)
    out += [kind.format(which) for which in of for kind in kinds]
  if any(s.traits.confidence for s in data.subjects):
    top = [] if data.info.num_classes > 2 else ['ece[top]']
    out += ['ece', *top, 'ece[listed]', 'nll', 'brier', *OF_PIXELS]
    out += [f'dice_soft[{a}]' for a in ABSENT]
  if any(s.own for s in data.summaries):
    out += ['ece[own]', 'nll[own]', 'brier[own]']
  return tuple(out)


def evaluate(
  given: Sequence[str],
  labels: str,
  out: str | pathlib.Path,
  *,
  changes: Sequence[tuple[str, str]] = (),
  command: str = '',
  **options: str,
) -> tuple[Results, pathlib.Path]:
  """Scores folders of predictions ([NAME=]FOLDER) and writes the report -> (results, page).

  changes: as configs.override takes them, of Scoring. options: of Dataset. Raises UserError.
  """
  named = checkpointed.names_and_folders(given, 'predictions')
  folders.check_replaceable(paths.of(out), report.RESULTS, report.FORM)
  _config((), 1, changes)  # a wrong key is said before files are read
  data = Dataset(named, labels, **options)
  for subject in data.subjects:
    sharding.say(f'{subject.name}: {subject.note}', sys.stderr)
  config = _config(metrics(data), data.samples, changes)
  if data.uneven:
    sharding.say(data.uneven, sys.stderr)
  mesh = sharding.make_mesh()
  evaluator = Evaluator(config.report, data.info, mesh=mesh, detail=True, readers=True)
  if (most := evaluator.plan.samples) > data.samples:
    names = (m.name for m in evaluator.plan.metrics if catalogue.number_of(m.name) == most)
    name = next(names, 'config.report.samples')
    raise UserError(f'{name}: {most} samples; the largest number is {data.samples}')
  place = dict(host=jax.process_index(), hosts=jax.process_count(), devices=mesh.size)
  about = report.About(
    title=table.joined([name for name, _ in named]),
    split=f'labels in {labels or named[0][1]}',
    models=tuple(f'{s.name}: {s.note}' for s in data.subjects),
    command=command,
    config=config.to_dict(),
    notes=(data.uneven,) if data.uneven else (),
  )
  return report.evaluate(
    evaluator,
    data.subjects,
    lambda: data.batches(**place),
    out,
    about,
    images=len(data),
    seed=config.seed,
  )


def _config(names: Sequence[str], samples: int, changes: Sequence[tuple[str, str]]) -> ConfigDict:
  """The config of the report with the user's changes. Raises UserError."""
  full: dict[str, Any] = dict(report=dict(metrics=tuple(names), samples=samples))
  return configs.override(configs.complete(full, Scoring), changes, Scoring)
