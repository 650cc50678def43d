"""Compiles what trainings run for TPUs, on a machine without one: make check-tpu

  python -m tools.check_tpu [CONFIG[:VARIANT] ...] [--slices v5e-1,v5e-16] [--config.KEY=VALUE ...]

The training step and the predictor of every config (or of those named) are compiled by libtpu for
described slices, one program at a time in a process of its own. Printed and kept in --file, from
which an interrupted check goes on: whether it compiles, memory of a chip, operations, bytes moved,
collectives, and the share of its peak that a chip can reach at most. A batch has an image for each
chip at least and is rounded as training rounds it. --write puts the table into docs/performance.md.
Exit status 1 where a program does not compile, or a config fits none of the slices; nothing is run.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import importlib
import json
import math
import multiprocessing
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any

from car_jax import config as configs
from car_jax.errors import UserError, nearest
from car_jax.reproduce.experiments import ADAPTED, FLIPPED, GTA5, LIDC_V1, LIDC_V2, SYNTHIA, Source

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'performance.md'
SLICES = {  # name -> topology, as libtpu calls it; the last only for what is LARGE
  'v5e-1': 'v5e:1x1',
  'v6e-1': 'v6e:1x1',
  'v5e-16': 'v5e:4x4',
  'v5p-64': 'v5p:2x4x4',  # named by its cores, two to a chip
}
LARGEST, LARGE = 'v5p-64', 300e6  # numbers of a state
HEAD = ['config', 'slice', 'program', 'batch', 'GB', 'TFLOP', 'GB moved', 'collectives', 'MFU']
ENVIRONMENT = dict(  # of libtpu where there is no TPU: it asks nobody what machine this is
  JAX_PLATFORMS='cpu',
  ALLOW_MULTIPLE_LIBTPU_LOAD='1',
  TPU_SKIP_MDS_QUERY='1',
  TPU_WORKER_HOSTNAMES='localhost',
  TPU_MIN_LOG_LEVEL='3',
  TPU_STDERR_LOG_LEVEL='3',
)
PUBLISHED = ('car_lidc', 'mose_lidc', 'mose_lidc_light', 'car_cityscapes', 'mose_cityscapes')
VARIANTS: dict[str, str] = dict(  # file -> what of it names its variants
  deeplabv3plus_cityscapes='MODELS',
  demo='METHODS',
  genval_tiny='METHODS',
  lts_street_scenes='METHODS',
  sac_gta5='STEPS',
  sac_street_scenes='METHODS',
  sac_synthia='STEPS',
  segformer_cityscapes='VARIANTS',
  segmenters_cityscapes='MODELS',
  segmenters_street_scenes='MODELS',
  smoke='METHODS',
  zoo='STEPS',
)
WEIGHTS = ('genval_controlnet',)  # begins with a file of published weights
OUT_OF_MEMORY = re.compile(r'(?:temporaries \(|Used )([\d.]+)([KMGT])')
OP = re.compile(
  r' = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\('
)
ARRAY = re.compile(r'\b(pred|[a-z]+?(\d+))(?:e\dm\d\w*)?\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True)
class Chip:
  """By https://cloud.google.com/tpu/docs, pages v5e, v6e and v5p, as of 2026-11-29.

  flops: of bfloat16 a second, in which TPUs multiply float32 unless told otherwise. memory: bytes.
  bandwidth: of the memory, bytes a second; links: out of a chip to others, bytes a second, half of
  what is stated for both ways.
  """

  flops: float
  memory: float
  bandwidth: float
  links: float


CHIPS = {
  'v5e': Chip(197e12, 16e9, 819e9, 200e9),
  'v6e': Chip(918e12, 32e9, 1600e9, 400e9),
  'v5p': Chip(459e12, 95e9, 2765e9, 600e9),
}


@dataclasses.dataclass
class Compiled:
  """Of one program, for one chip of a slice; memory alone where it does not fit.

  collectives: kind -> how many, bytes of their results. seconds: that compiling took.
  """

  batch: int = 0
  memory: float = 0
  flops: float = 0
  moved: float = 0
  collectives: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
  seconds: float = 0
  fits: bool = False
  failure: str = ''

  def bound(self, chip: Chip) -> float:
    """Share of the peak that operations, memory and links allow, if all overlap."""
    busy = self.flops / chip.flops
    sent = sum((1 + (k == 'all-reduce')) * size for k, (_, size) in self.collectives.items())
    return busy / max(busy, self.moved / chip.bandwidth, sent / chip.links, 1e-30)

  def cells(self, chip: Chip) -> list[str]:
    """Of a row of the table, from memory on."""
    memory = f'{self.memory / 1e9:.2f}'
    if not self.fits:
      return ['fails' if self.failure else f'**{memory}**', *[''] * 4]
    sent = (f'{n} {kind} of {size / 1e6:,.1f} MB' for kind, (n, size) in self.collectives.items())
    work = f'{self.flops / 1e12:.3g}', f'{self.moved / 1e9:.3g}'
    return [memory, *work, ', '.join(sent), f'{self.bound(chip):.0%}']

  def words(self, chip: Chip) -> str:
    """A line on it."""
    if self.failure:
      return f'does not compile: {self.failure}'
    labelled = zip(HEAD[4:], self.cells(chip), strict=True)
    text = ', '.join(f'{name} {cell}' for name, cell in labelled if cell)
    return f'{text} ({self.seconds:.0f} s)' + ('' if self.fits else '; does not fit')


def names() -> list[str]:
  """Every config that trains, with its variants; published experiments first."""
  made = []
  for file in [*PUBLISHED, *(f for f in configs.shipped() if f not in PUBLISHED + WEIGHTS)]:
    if configs.command(configs.read(file_of(file))) == 'train':
      module = importlib.import_module(f'car_jax.configs.{file}')
      variants = getattr(module, VARIANTS[file]) if file in VARIANTS else ()
      made += [f'{file}:{variant}' for variant in variants] or [file]
  return made


def file_of(name: str) -> str:
  file, _, variant = name.partition(':')
  return f'configs/{file}.py' + (f':{variant}' if variant else '')


def sources_of(data: str) -> dict[str, Source]:
  """Blank images for all data sets that lie in files, the drawn ones as large as `data` says."""
  height = int(match[1]) if (match := re.search(r'(?:height|size)(\d+)', data)) else 128
  drawn = [Source('street_scenes', shape=(height, 2 * height, 3))]
  drawn += [Source('lidc_masks', shape=(height, height, 1))]
  cityscapes = ADAPTED if 'scale1' in data else FLIPPED
  return {s.data: s for s in (LIDC_V1, LIDC_V2, GTA5, SYNTHIA, cityscapes, *drawn)}


class Counts(dict[str, int]):
  """As many examples in every split, whatever its name."""

  def __missing__(self, split: str) -> int:
    return 1024


def setting(name: str, chips: int, changes: list[tuple[str, str]]) -> Any:
  """costs.Setting of a config as so many chips train it, with an image for each at least."""
  from car_jax import batch_size
  from car_jax.reproduce import costs

  config = configs.load(file_of(name), changes)
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

  def placed(tree: Any, where: Any) -> Any:
    shape = lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where)
    return jax.tree.map(shape, tree)

  state = placed(begun.state, sharding.replicated(mesh))
  split_up = lambda batch: placed(jax.eval_shape(compact.expand, batch), sharding.split(mesh))
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


def compiled(lower: Callable[[], Any]) -> Compiled:
  """Of the program that `lower` gives."""
  import jax

  started = time.perf_counter()
  made = Compiled()
  try:
    program = lower().compile()
  except jax.errors.JaxRuntimeError as e:
    if used := OUT_OF_MEMORY.search(str(e)):
      made.memory = float(used[1]) * 1024.0 ** ('KMGT'.index(used[2]) + 1)
    else:
      made.failure = str(e)
  else:
    memory, analysis = program.memory_analysis(), program.cost_analysis()
    made.fits = True
    made.memory = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
    made.flops, made.moved = analysis['flops'], analysis['bytes accessed']
    made.collectives = collectives(program.as_text())
  made.seconds = time.perf_counter() - started
  return made


def collectives(text: str) -> dict[str, tuple[int, int]]:
  """Of a compiled program: kind -> how many, and bytes of what each gives to a chip."""
  made: dict[str, tuple[int, int]] = {}
  for line in text.splitlines():
    if match := OP.search(line):
      shapes, kind, start = match.groups()
      arrays = [
        int(bits or 8) // 8 * math.prod(int(n) for n in sides.split(',') if n)
        for _, bits, sides in ARRAY.findall(shapes)
      ]
      if start and kind != 'all-reduce':  # (what went in, what comes out, ..)
        arrays = arrays[1:2]
      count, size = made.get(kind, (0, 0))
      made[kind] = count + 1, size + sum(arrays)
  return made


def check(name: str, slice_: str, changes: list[tuple[str, str]], file: pathlib.Path) -> None:
  """Compiles a config's programs that `file` lacks and keeps each there as it is done."""
  import jax
  import numpy as np
  from jax.experimental import topologies
  from jax.sharding import Mesh

  jax.config.update('jax_enable_compilation_cache', False)
  one = dict(chips_per_host_bounds=(1, 1, 1)) if slice_.endswith('-1') else {}
  topology = topologies.get_topology_desc(SLICES[slice_], platform='tpu', **one)
  mesh = Mesh(np.array(topology.devices), ('data',))
  begun = setting(name, mesh.size, changes)
  size = sum(np.size(a) for a in jax.tree.leaves(begun.state))
  record = Record.load(file)
  part = record.part(name, slice_, changes)
  if slice_ != LARGEST or size >= LARGE:
    for program, images, lower in programs(begun, mesh):
      if program not in part.programs:
        made = compiled(lower)
        made.batch = images
        part.programs[program] = made
        record.save(file)
        print(f'  {program}: {made.words(CHIPS[slice_.partition("-")[0]])}', flush=True)
  part.complete = True
  record.save(file)


@dataclasses.dataclass
class Part:
  """A config on a slice: its programs, and whether these are all."""

  programs: dict[str, Compiled] = dataclasses.field(default_factory=dict)
  complete: bool = False
  failure: str = ''


@dataclasses.dataclass
class Record:
  """What one version of the compiler made so far: 'CONFIG SLICE [KEY=VALUE ..]' -> Part."""

  versions: str
  parts: dict[str, Part] = dataclasses.field(default_factory=dict)

  @classmethod
  def load(cls, file: pathlib.Path) -> 'Record':
    """What is there; nothing where it is of another version, or where there is no file."""
    versions = f'jax {metadata.version("jax")}, libtpu {metadata.version("libtpu")}'
    kept = json.loads(file.read_text()) if file.exists() else {}
    if kept.get('versions') != versions:
      return cls(versions)
    parts = {
      name: Part(**part | dict(programs={k: Compiled(**v) for k, v in part['programs'].items()}))
      for name, part in kept['parts'].items()
    }
    return cls(versions, parts)

  def save(self, file: pathlib.Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix('.new')
    written.write_text(json.dumps(dataclasses.asdict(self), indent=1))
    written.replace(file)

  def part(self, name: str, slice_: str, changes: list[tuple[str, str]]) -> Part:
    key = ' '.join([name, slice_, *(f'{k}={v}' for k, v in changes)])
    return self.parts.setdefault(key, Part())

  def rows(self) -> Iterator[list[str]]:
    for key, part in self.parts.items():
      name, slice_, *changes = key.split()
      chip = CHIPS[slice_.partition('-')[0]]
      for program, made in part.programs.items():
        title = ' '.join([f'`{name}`', *changes])
        yield [title, slice_, program, f'{made.batch}', *made.cells(chip)]


def alone(*arguments: Any) -> str:
  """check(*arguments) in a process of its own, which the compiler may end -> what went wrong."""
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    try:
      pool.submit(check, *arguments).result()
    except Exception as e:
      return f'{type(e).__name__}: {e}'
  return ''


def main(arguments: list[str]) -> int:
  os.environ |= ENVIRONMENT
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('configs', nargs='*', metavar='CONFIG[:VARIANT]', help='all without any')
  parser.add_argument('--slices', default=','.join(SLICES), help=f'of {", ".join(SLICES)}')
  parser.add_argument('--file', type=pathlib.Path, default=ROOT / '.cache' / 'check_tpu.json')
  parser.add_argument('--write', action='store_true', help='the table of --file, into the page')
  args, rest = parser.parse_known_args(arguments)
  changes, slices = configs.split_overrides(rest), args.slices.split(',')
  for known, given in ((names(), args.configs), (SLICES, slices)):
    if unknown := [name for name in given if name not in known]:
      raise UserError(f'nothing is called {unknown[0]!r}\n{nearest(unknown[0], known)}')
  todo = [(name, slice_) for slice_ in slices for name in args.configs or names()]
  for k, (name, slice_) in enumerate([] if args.write else todo, 1):
    record = Record.load(args.file)
    part = record.part(name, slice_, changes)
    if not part.complete:
      print(f'{k} of {len(todo)}: {name} on {slice_}', flush=True)
      failure = alone(name, slice_, changes, args.file)
      record = Record.load(args.file)
      record.part(name, slice_, changes).failure = failure
      record.save(args.file)
  record = Record.load(args.file)
  if args.write:
    write(PAGE, 'compiled', [HEAD, *record.rows()])
    return 0
  parts = {(name, slice_): record.part(name, slice_, changes) for name, slice_ in todo}
  failed = [*failures(parts)]
  print('\n'.join(failed), file=sys.stderr)
  return int(bool(failed))


def failures(parts: Mapping[tuple[str, str], Part]) -> Iterator[str]:
  """A line for each program that does not compile, and for each that fits none of the slices."""
  fits: dict[str, bool] = {}
  for (name, slice_), part in parts.items():
    if part.failure:
      yield f'{name} on {slice_}: {part.failure}'
    for program, made in part.programs.items():
      if made.failure:
        yield f'{name} on {slice_}, {program}: {made.failure}'
      fits[f'{name}, {program}'] = fits.get(f'{name}, {program}', False) or made.fits
  yield from (f'{title}: fits none of the slices' for title, some in fits.items() if not some)


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
    sys.exit(f'error: {e}')
