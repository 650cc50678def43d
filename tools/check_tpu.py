"""Compiles what trainings run for TPUs, on a machine without one: make check-tpu

  python -m tools.check_tpu [CONFIG[:VARIANT] ...] [--slices v5e-1,v5e-16] [--config.KEY=VALUE ...]

The training step and the predictor of every config (or of those named) are compiled by libtpu for
described slices, each config in a process of its own. Printed and kept in --file, from which an
interrupted check goes on: whether it compiles, memory of a chip, operations, bytes moved,
collectives, and the share of its peak that a chip can reach at most. A program that was compiled
before, for this or another config, is known by its text and not compiled again; the file is part
of the checkout, so a check compiles what has changed since. A batch has an image for each chip at
least and is rounded as training rounds it. --write puts the tables into docs/performance.md and
docs/devices.md, every program into docs/static/compiled.csv, and leaves out of --file what no
config needs. Exit status 1 where a program does not compile, or a config fits none of the slices;
nothing is run.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import importlib
import itertools
import multiprocessing
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from car_jax import config as configs
from car_jax.errors import UserError, nearest, report
from car_jax.reproduce.experiments import ADAPTED, FLIPPED, GTA5, LIDC_V1, LIDC_V2, SYNTHIA, Source
from tools.compiled import (
  LARGE,
  LARGEST,
  SLICES,
  Part,
  Record,
  chip_of,
  compiled,
  digest,
  source_of,
)

Changes = Sequence[tuple[str, str]]
ROOT = pathlib.Path(__file__).parents[1]
PAGE, DEVICES = ROOT / 'docs' / 'performance.md', ROOT / 'docs' / 'devices.md'
TABLE = ROOT / 'docs' / 'static' / 'compiled.csv'
RECORD = ROOT / 'tools' / 'compiled.jsonl'
HEAD = ['config', 'program', 'batch', *SLICES]
COUNTED = ['slice', 'configs', 'different programs', 'that do not fit', 'that do not compile']
COLUMNS = ['config', 'slice', 'program', 'batch', 'bytes', 'flops', 'moved', 'collectives', 'mfu']
ENVIRONMENT = dict(  # of libtpu where there is no TPU: it asks nobody what machine this is
  JAX_PLATFORMS='cpu',
  ALLOW_MULTIPLE_LIBTPU_LOAD='1',
  TPU_SKIP_MDS_QUERY='1',
  TPU_WORKER_HOSTNAMES='localhost',
  TPU_MIN_LOG_LEVEL='3',
  TPU_STDERR_LOG_LEVEL='3',
)
PUBLISHED = ('car_lidc', 'mose_lidc', 'mose_lidc_light', 'car_cityscapes', 'mose_cityscapes')
FIRST_ALONE = (  # files of which the variant that is meant without a word is compiled, no other
  'car_lidc',
  'families_lidc_masks',
  'families_street_scenes',
  'prob_unet_lidc',
  'ssn_lidc',
)
MEMORY_MARGIN = (
  1.25  # of memory at the least effort, at most: 1.16 was measured, see docs/performance.md
)
WEIGHTS = ('genval_controlnet', 'genval_tiny:controlnet')  # begin with files of weights


def names() -> list[str]:
  """Every config that trains, published experiments first; variants but for FIRST_ALONE."""
  made = []
  for file in [*PUBLISHED, *(f for f in configs.shipped() if f not in PUBLISHED)]:
    if configs.command(configs.read(configs.path_of(file))) == 'train':
      module = vars(importlib.import_module(f'car_jax.configs.{file}'))
      variants = () if file in FIRST_ALONE else module.get('VARIANTS', ())
      made += [f'{file}:{variant}' for variant in variants] or [file]
  return [name for name in made if not {name, name.partition(':')[0]} & {*WEIGHTS}]


def sources_of(data: str) -> dict[str, Source]:
  """Blank images for all data sets that lie in files, the drawn ones as large as `data` says."""
  height = int(match[1]) if (match := re.search(r'(?:height|size)(\d+)', data)) else 128
  drawn = [Source('street_scenes', shape=(height, 2 * height, 3))]
  drawn += [Source('lidc_masks', shape=(height, height, 1))]
  cityscapes = ADAPTED if 'scale1' in data else FLIPPED
  return {s.data: s for s in (LIDC_V1, LIDC_V2, GTA5, SYNTHIA, cityscapes, *drawn)}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How every config is checked. source: of the library as it is now, see source_of."""

  changes: Changes
  file: pathlib.Path
  effort: float
  source: str

  def record(self) -> Record:
    return Record(self.file, self.effort)


class Counts(dict[str, int]):
  """As many examples in every split, whatever its name."""

  def __missing__(self, split: str) -> int:
    return 1024


def setting(name: str, chips: int, changes: Changes) -> Any:
  """costs.Setting of a config as so many chips train it, with an image for each at least."""
  from car_jax import batch_size
  from car_jax.reproduce import costs

  config = configs.load(configs.path_of(name), changes)
  config.data.batch = max(config.data.batch, chips)
  if (target := config.data.get('target')) and target.groups:
    target.groups = max(target.groups, -(-chips // (target.views or 1)))
  config, _ = batch_size.effective(config, chips)
  given = sources_of(config.data.name)
  data = costs.blank(config, given, {k: Counts(train=2_975) for k in given})
  return costs.setting(config, data)


def programs(begun: Any, mesh: Any) -> Iterator[tuple[str, int, Callable[[], Any]]]:
  """(name, images in its batch, function that lowers it) of each kind of step, and of the
  predictor."""
  import jax

  from car_jax import loop, sharding
  from car_jax.data import compact
  from car_jax.evaluate import plan
  from car_jax.evaluate.validate import Validation

  placed = lambda a, where: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where)
  state = jax.tree.map(placed, begun.state, sharding.of_state(begun.state, mesh, begun.config.fsdp))

  def split_up(batch: Any) -> Any:
    where = sharding.split(mesh)
    return jax.tree.map(lambda a: placed(a, where), jax.eval_shape(compact.expand, batch))

  config = begun.config.copy_and_resolve_references()
  config.evals, config.best = {}, ''
  run = loop.Run(config, pathlib.Path(), mesh, begun.dataset, begun.method)
  for kind in begun.kinds:
    name = 'step' if kind is None else f'step {kind}'
    images = begun.config.data.batch
    yield name, images, lambda kind=kind: run.jitted.lower(kind, state, split_up(begun.batch))
  if begun.method.predictors():
    spec = plan.report_spec(config)
    validation = Validation(begun.method, begun.dataset, config, spec, mesh)
    with contextlib.closing(validation.batches(validation.source)) as batches:
      batch = compact.numbers(next(batches))
    yield 'predict', len(batch['valid']), lambda: validation.lowered(state, split_up(batch))


def check(name: str, slices: Sequence[str], settings: Settings) -> None:
  """Compiles a config's programs that the file lacks and keeps each there as it is done."""
  import jax
  import numpy as np
  from jax.experimental import topologies
  from jax.sharding import Mesh

  from car_jax import sharding

  jax.config.update('jax_enable_compilation_cache', False)
  for slice_ in slices:
    one = dict(chips_per_host_bounds=(1, 1, 1)) if slice_.endswith('-1') else {}
    topology = topologies.get_topology_desc(SLICES[slice_], platform='tpu', **one)
    mesh = Mesh(np.array(sharding.ordered(topology.devices)), ('data',))
    begun = setting(name, mesh.size, settings.changes)
    size = sum(np.size(a) for a in jax.tree.leaves(begun.state))
    record, part = settings.record(), Part(settings.source)
    if slice_ != LARGEST or size >= LARGE:
      for program, images, lower in programs(begun, mesh):
        part.programs[program] = images, kept(record, f'{name}, {program}', slice_, lower())
    record.add(key_of(name, slice_, settings.changes), part)


def kept(record: Record, title: str, slice_: str, lowered: Any) -> str:
  """The digest of a program, which the record has afterwards, compiled."""
  text = digest(lowered)
  if made := record.made.get((slice_, text)):
    how = f'as {made.title}'
  else:
    made = compiled(lowered, record.effort)
    if (
      record.effort < 0 < made.memory
      and not made.fits
      and made.memory < MEMORY_MARGIN * chip_of(slice_).memory
    ):
      made = compiled(lowered, 0.0)
    made.title = title
    record.add((slice_, text), made)
    how = f'{made.seconds:.0f} s of the processor'
  print(f'{title} on {slice_}: {made.words(chip_of(slice_))} ({how})', flush=True)
  return text


def key_of(name: str, slice_: str, changes: Changes) -> tuple[str, ...]:
  return name, slice_, *(f'{k}={v}' for k, v in changes)


def attempt(*arguments: Any) -> str:
  """check(*arguments) -> what went wrong, in words: not all of jax's errors can be pickled."""
  try:
    check(*arguments)
  except Exception as e:
    return f'{type(e).__name__}: {e}'
  return ''


def alone(*arguments: Any) -> str:
  """attempt(*arguments) in a process of its own, which the compiler may end."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    try:
      return pool.submit(attempt, *arguments).result()
    except BrokenProcessPool as e:
      return f'{type(e).__name__}: {e}'


def complete(name: str, slices: Sequence[str], settings: Settings) -> None:
  """Checks a config on those slices that the file lacks, or has of another source."""

  def left(slices: Sequence[str]) -> list[str]:
    parts = settings.record().parts
    of = {s: parts.get(key_of(name, s, settings.changes), Part()) for s in slices}
    return [s for s, part in of.items() if part.failure or part.source != settings.source]

  slices = left(slices)
  while slices:
    failure = alone(name, slices, settings)
    slices = left(slices)
    if slices:
      settings.record().add(key_of(name, slices.pop(0), settings.changes), Part(failure=failure))


def main(arguments: list[str]) -> int:
  os.environ |= ENVIRONMENT
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('configs', nargs='*', metavar='CONFIG[:VARIANT]', help='all without any')
  parser.add_argument('--slices', default=','.join(SLICES), help=f'of {", ".join(SLICES)}')
  parser.add_argument('--file', type=pathlib.Path, default=RECORD)
  parser.add_argument('--effort', type=float, default=-1.0, help='0: as a training compiles')
  parser.add_argument('--jobs', type=int, default=1, help='processes; each takes up to 6 GB')
  parser.add_argument('--write', action='store_true', help='what --file has, into the docs')
  args, rest = parser.parse_known_args(arguments)
  changes, slices = configs.split_overrides(rest), args.slices.split(',')
  for known, given in ((names(), args.configs), (SLICES, slices)):
    if unknown := [name for name in given if name not in known]:
      raise UserError(f'nothing is called {unknown[0]!r}\n{nearest(unknown[0], known)}')
  settings = Settings(changes, args.file, args.effort, source_of(ROOT / 'car_jax'))
  if args.write:
    record = settings.record()
    record.tidy(names())
    document(record)
    return 0
  chosen = args.configs or names()
  with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
    [*pool.map(lambda name: complete(name, slices, settings), chosen)]
  keys = [key_of(name, slice_, changes) for name in chosen for slice_ in slices]
  failed = [*failures(settings.record(), keys)]
  print('\n'.join(failed), file=sys.stderr)
  return int(bool(failed))


def failures(record: Record, keys: Sequence[tuple[str, ...]]) -> Iterator[str]:
  """A line for each program that does not compile, and for each that fits none of the slices."""
  fits: dict[str, bool] = {}
  for key in keys:
    part, (name, slice_) = record.parts[key], key[:2]
    if part.failure:
      yield f'{name} on {slice_}: {part.failure}'
    for program, (_, text) in part.programs.items():
      made = record.made[slice_, text]
      if made.failure:
        yield f'{name} on {slice_}, {program}: {made.failure}'
      fits[f'{name}, {program}'] = fits.get(f'{name}, {program}', False) or made.fits
  yield from (f'{title}: fits none of the slices' for title, some in fits.items() if not some)


def document(record: Record) -> None:
  """The tables of docs/performance.md, and every program in a file beside."""
  write(PAGE, 'checked', [COUNTED, *counts(record)])
  write(PAGE, 'compiled', without_empty_columns([HEAD, *rows(record, changed=False)]))
  write(DEVICES, 'options', without_empty_columns([HEAD, *rows(record, changed=True)]))
  with TABLE.open('w', newline='') as file:
    table = csv.writer(file, lineterminator='\n')
    table.writerow(COLUMNS)
    for (name, slice_, *changes), part in sorted(record.parts.items()):
      for program, (images, text) in part.programs.items():
        made = record.made[slice_, text]
        table.writerow([' '.join([name, *changes]), slice_, program, images, *made.cells(slice_)])


def counts(record: Record) -> Iterator[list[str]]:
  """Of each slice: configs checked there, their different programs, and what of these failed."""
  for slice_ in SLICES:
    parts = [part for (_, s, *changes), part in record.parts.items() if s == slice_ and not changes]
    made = [record.made[slice_, t] for t in {t for p in parts for _, t in p.programs.values()}]
    broken = sum(bool(m.failure) for m in made) + sum(bool(p.failure) for p in parts)
    small = sum(not m.fits and not m.failure for m in made)
    checked = sum(bool(p.programs) for p in parts)
    yield [slice_, f'{checked} of {len(names())}', f'{len(made)}', f'{small}', f'{broken}']


def rows(record: Record, *, changed: bool) -> Iterator[list[str]]:
  """Of a page: of each config the program that takes most memory, on all slices; with `changed` of
  configs with options, beside them as they are. What is the same program shares a row."""
  order, titled = names(), collections.defaultdict(list)
  with_options = {name for name, _, *changes in record.parts if changes}
  checked = {
    (order.index(name), *changes)
    for name, _, *changes in record.parts
    if (name in with_options if changed else not changes)
  }
  for number, *changes in sorted(checked):
    parts = {s: record.parts.get((order[number], s, *changes), Part()) for s in SLICES}
    program = heaviest(record, parts)
    uses = tuple(part.programs.get(program) for part in parts.values())
    titled[program, uses].append(f'`{" ".join([order[number], *changes])}`')
  for (program, uses), titles in titled.items():
    images = next((use[0] for use in uses if use), '')
    used = zip(SLICES, uses, strict=True)
    cells = [record.made[s, use[1]].cell(s) if use else '' for s, use in used]
    yield [', '.join(titles), program, f'{images}', *cells]


def without_empty_columns(rows: list[list[str]]) -> list[list[str]]:
  """Without the columns that have nothing but a head."""
  used = [any(column) for column in zip(*rows[1:], strict=True)] or [True] * len(rows[0])
  return [list(itertools.compress(row, used)) for row in rows]


def heaviest(record: Record, parts: Mapping[str, Part]) -> str:
  """Of a config's programs on some slices that which takes most memory there; '' of none."""
  memory: dict[str, float] = collections.defaultdict(float)
  for slice_, part in parts.items():
    for program, (_, text) in part.programs.items():
      memory[program] += record.made[slice_, text].memory
  return max(memory, key=lambda program: memory[program], default='')


def write(page: pathlib.Path, mark: str, rows: list[list[str]]) -> None:
  """A table between the page's <!-- mark --> and <!-- end -->; the first row is its head."""
  lines = [rows[0], ['---'] * len(rows[0]), *rows[1:]]
  table = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  pattern = rf'(?s)(?<=<!-- {mark} -->\n).*?(?=<!-- end -->)'
  page.write_text(re.sub(pattern, lambda _: table, page.read_text(), count=1))


if __name__ == '__main__':
  try:
    sys.exit(main(sys.argv[1:]))
  except UserError as e:
    report(e)
    sys.exit(2)
