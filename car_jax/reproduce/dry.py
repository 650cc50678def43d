"""What an experiment would do and cost, said without doing it."""

import sys
from collections.abc import Mapping

from car_jax.report.table import Table, table
from car_jax.reproduce import costs, counts, stages
from car_jax.reproduce.costs import Cost, Rate
from car_jax.reproduce.stages import Request, Stage

NOTES = """\
Counted, by XLA of the lowered step, without running it: operations, and bytes moved with nothing
fused; a mean over the kinds of steps. Counted too: memory, of all that is alive at once in a step,
state and batch among it, nothing fused. A compiler moves and keeps less.
Assumed, not measured: {}. Hours are of one seed, without
evaluations: by operations the least, by bytes what unfused operations would take."""


def show(request: Request, stage: str, rate: Rate) -> None:
  """Prints the commands, the numbers of images and the costs of trainings."""
  todo = stages.chosen(stages.of(request), stage)
  seen = _examples(request)
  print(
    '\n'.join([f'{request.experiment.about}: {len(todo)} steps', *request.caveat(), '']), flush=True
  )
  for one in todo:
    print(f'{one.name}{" (done)" if one.done() else ""}\n  {one.command}')
  print()
  for source in request.experiment.sources:
    text = ', '.join(f'{n:,} {split}' for split, n in seen[source.data].items())
    where = 'counted there' if any(request.sources) else f'published: {source.cite}'
    print(f'{source.data}: {text or "any number"} ({where})', flush=True)
  if made := costs_of(request, todo, seen):
    print('\n'.join(['', *as_table(made, rate).terminal(100), '']))
    print(NOTES.format(rate.words))
  elif request.experiment.study or request.released:
    print('nothing is trained')


def costs_of(
  request: Request, todo: list[Stage], seen: Mapping[str, Mapping[str, int]]
) -> dict[str, tuple[Cost, int]]:
  """Training -> its cost and how many seeds of it there are.

  seen: data set -> examples by split.
  """
  given = {source.data: source for source in request.experiment.sources}
  made = {}
  for training in dict.fromkeys(s.training for s in todo if s.training):
    config = stages.effective_config(training.config, request.changes)[0]
    print(f'counting operations of {training.name} ..', file=sys.stderr, flush=True)
    seeds = sum(s.training == training for s in todo)
    made[training.name] = costs.of(config, costs.blank(config, given, seen)), seeds
  return made


def _examples(request: Request) -> dict[str, dict[str, int]]:
  """Of the user's folders, or as published."""
  return {
    source.data: counts.counted(source, folder, request.data_dir)
    if folder
    else dict(source.counts[0] if source.counts else {})
    for source, folder in zip(request.experiment.sources, request.sources, strict=True)
  }


def as_table(made: dict[str, tuple[Cost, int]], rate: Rate) -> Table:
  rows = []
  for name, (cost, seeds) in made.items():
    row = [name, f'{cost.steps:,}', figure(cost.flops / 1e12, 3), figure(cost.moved / 1e9, 3)]
    hours = [figure(h, 2) for h in cost.hours(rate)]
    rows.append([*row, figure(cost.memory / 1e9, 2), *hours, f'{seeds}'])
  head = ['training', 'steps', 'TFLOP a step', 'GB moved a step', 'memory, GB']
  head += ['hours by TFLOP', 'hours by GB', 'seeds']
  return table('costs of the trainings', head, rows)


def figure(x: float, digits: int) -> str:
  """x to so many digits, without a power of ten: 1,910 of 1914.2 to three."""
  short = f'{x:.{digits}g}'
  return f'{float(short):,.0f}' if float(short) >= 10**digits else short
