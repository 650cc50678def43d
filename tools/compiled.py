"""What a compiler says of programs for TPUs, and a file that keeps it: see tools/check_tpu.py."""

import dataclasses
import hashlib
import json
import math
import pathlib
import re
import time
from collections.abc import Collection
from importlib import metadata
from typing import Any

import jax

from benchmarks import peaks
from car_jax import folders

SLICES = {  # name -> topology, as libtpu calls it; the last only for what is LARGE
  'v5e-1': 'v5e:1x1',
  'v6e-1': 'v6e:1x1',
  'v5e-16': 'v5e:4x4',
  'v5p-64': 'v5p:2x4x4',  # named by its cores, two to a chip
}
LARGEST, LARGE = 'v5p-64', 300e6  # numbers of a state
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

  @classmethod
  def of(cls, name: str, memory: float, links: float) -> 'Chip':
    peak = peaks.NAMED[name]
    return cls(peak.flops('bfloat16'), memory, peak.bandwidth * 1e12, links)


CHIPS = {
  'v5e': Chip.of('TPU v5e', 16e9, 200e9),
  'v6e': Chip.of('TPU v6e', 32e9, 448e9),
  'v5p': Chip.of('TPU v5p', 95e9, 600e9),
}


def chip_of(slice_: str) -> Chip:
  return CHIPS[slice_.partition('-')[0]]


@dataclasses.dataclass
class Compiled:
  """Of one program, for one chip of a slice; memory alone where it does not fit.

  collectives: kind -> how many, bytes of their results. seconds: of the processor, that compiling
  took. title: the config and the program that it was compiled for.
  """

  memory: float = 0
  flops: float = 0
  moved: float = 0
  collectives: dict[str, tuple[int, float]] = dataclasses.field(default_factory=dict)
  seconds: float = 0
  fits: bool = False
  failure: str = ''
  title: str = ''

  def bound(self, chip: Chip) -> float:
    """Share of the peak that operations, memory and links allow, if all overlap."""
    busy = self.flops / chip.flops
    sent = sum((1 + (k == 'all-reduce')) * size for k, (_, size) in self.collectives.items())
    return busy / max(busy, self.moved / chip.bandwidth, sent / chip.links, 1e-30)

  def exchanged(self) -> str:
    return ', '.join(
      f'{n} {k} of {size / 1e6:,.1f} MB' for k, (n, size) in self.collectives.items()
    )

  def cell(self, slice_: str) -> str:
    """GB, in bold where they are more than there is, and the largest share of the peak."""
    memory = f'{self.memory / 1e9:.2f}'
    if not self.fits:
      return 'fails' if self.failure else f'**{memory}**'
    return f'{memory}, {self.bound(chip_of(slice_)):.0%}'

  def cells(self, slice_: str) -> list[str]:
    """Of a row of the file: bytes, operations, bytes moved, collectives, share of the peak."""
    if not self.fits:
      return ['fails' if self.failure else f'{self.memory:.4g}', *[''] * 4]
    numbers = f'{self.memory:.4g}', f'{self.flops:.4g}', f'{self.moved:.4g}'
    return [*numbers, self.exchanged(), f'{self.bound(chip_of(slice_)):.3f}']

  def words(self, chip: Chip) -> str:
    """A line on it."""
    if self.failure:
      return f'does not compile: {self.failure}'
    memory = f'{self.memory / 1e9:.2f} GB'
    if not self.fits:
      return f'{memory}: does not fit'
    work = f'{self.flops / 1e12:.3g} TFLOP', f'{self.moved / 1e9:.3g} GB moved', self.exchanged()
    return ', '.join([memory, *filter(None, work), f'MFU {self.bound(chip):.0%}'])


def compiled(lowered: Any, effort: float) -> Compiled:
  """Of a lowered program. effort: of the compiler, -1 to 1; below 0 it does not search for how best
  to cut convolutions up, which takes a third to half of its time and changes no count."""
  started, made = time.process_time(), Compiled()
  options: dict[str, Any] = dict(exec_time_optimization_effort=effort)
  if effort < 0:
    options['xla_jf_convolution_performance_target'] = 0
  try:
    program = lowered.compile(compiler_options=options)
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
  made.seconds = time.process_time() - started
  return made


def collectives(text: str) -> dict[str, tuple[int, float]]:
  """Of a compiled program: kind -> how many, and bytes of what each gives to a chip."""
  made: dict[str, tuple[int, float]] = {}
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


def digest(lowered: Any) -> str:
  """Of a lowered program's text, which has neither names of files nor lines."""
  return hashlib.sha256(lowered.as_text().encode()).hexdigest()[:16]


@dataclasses.dataclass
class Part:
  """Of a config on a slice: program -> (images in its batch, digest). source: see source_of."""

  source: str = ''
  programs: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
  failure: str = ''


def source_of(folder: pathlib.Path) -> str:
  """Digest of the Python files below a folder."""
  made = hashlib.sha256()
  for path in sorted(folder.rglob('*.py')):
    made.update(path.read_bytes())
  return made.hexdigest()[:16]


@dataclasses.dataclass
class Record:
  """A file of lines to which several processes add, and what it says of one compiler and effort.

  made: (slice, digest of a program) -> what became of it, so that one that several configs have in
  common is compiled once. parts: (config, slice, changes ..) -> its programs.
  """

  file: pathlib.Path
  effort: float
  made: dict[tuple[str, str], Compiled] = dataclasses.field(default_factory=dict)
  parts: dict[tuple[str, ...], Part] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    jax_, libtpu = metadata.version('jax'), metadata.version('libtpu')
    self.compiler = f'jax {jax_}, libtpu {libtpu}, effort {self.effort}'
    for line in self.file.read_text().splitlines() if self.file.exists() else ():
      kept = json.loads(line)
      if kept['compiler'] != self.compiler:
        continue
      if kept['kind'] == 'program':
        self.made[tuple(kept['key'])] = Compiled(**kept['value'])
      else:
        programs = {k: tuple(v) for k, v in kept['value']['programs'].items()}
        self.parts[tuple(kept['key'])] = Part(**kept['value'] | dict(programs=programs))

  def add(self, key: tuple[str, ...], value: Compiled | Part) -> None:
    self.file.parent.mkdir(parents=True, exist_ok=True)
    with self.file.open('a') as file:
      file.write(self.line(key, value))

  def line(self, key: tuple[str, ...], value: Compiled | Part) -> str:
    kind = 'program' if isinstance(value, Compiled) else 'part'
    line = dict(compiler=self.compiler, kind=kind, key=key, value=dataclasses.asdict(value))
    return json.dumps(line) + '\n'

  def tidy(self, names: Collection[str]) -> None:
    """Leaves only this compiler's, of the configs that are called so, and each of these once; with
    programs of a config that is not through on a slice."""
    self.parts = {key: part for key, part in sorted(self.parts.items()) if key[0] in names}
    used = {
      (key[1], text) for key, part in self.parts.items() for _, text in part.programs.values()
    }
    complete = {key[:2] for key in self.parts}
    for slice_, text in self.made:
      name = self.made[slice_, text].title.partition(', ')[0]
      if name in names and (name, slice_) not in complete:
        used.add((slice_, text))
    self.made = {key: self.made[key] for key in sorted(used)}
    lines = [self.line(key, value) for key, value in (self.made | self.parts).items()]
    with folders.whole(self.file) as part:
      part.write_text(''.join(lines))
