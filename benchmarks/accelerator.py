"""All that is timed on an accelerator, in minutes: python -m benchmarks.accelerator [PART ..]

  --out FILE     JSON of every row (accelerator.json), and beside it the table in Markdown
  --seconds N    no row begins later than that (420), to end within nine minutes; the same command
                 goes on with the rows that are missing, then tries again what failed

Of one device, with random weights and made-up images, in float32 and in bfloat16: time to compile,
a step's time, images a second, memory (the compiler's: arguments, results, scratch), counted
operations over the device's peak (MFU), and which share of a step waits for the next batch to come
from the host's memory. A row that fails, such as for want of memory, says so; the others go on.
Parts: see benchmarks/accelerator_cases.py. On a CPU this takes an hour; --toy is for tests.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import accelerator_cases as cases
from benchmarks import peaks, timing
from car_jax import files, folders, memory, operations, sharding
from car_jax.errors import UserError, nearest, reason
from car_jax.report import table

DTYPES = 'float32', 'bfloat16'
AIM, MOST = 1.0, 50  # seconds and steps of a timed run
TOY = 'segformer_b0', 'style', 'scores'  # counted at toy size
RUN = ('scores',)  # and run
FAILED = 'failed'  # begins the note of a row that is tried again
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Row:
  """What was measured of one program; with a `note` alone what could not be."""

  name: str
  dtype: str
  images: float = 0.0  # of a call
  compile_s: float | None = None
  step_s: float | None = None
  memory: int | None = None  # bytes
  flops: float | None = None  # counted, of a call
  mfu: float | None = None
  input_share: float | None = None
  note: str = ''


def measured(program: cases.Program, dtype: str, mesh: Mesh, *, run: bool = True) -> Row:
  """Compiles and runs it; without `run` its operations are counted only."""
  jitted = jax.jit(program.function, donate_argnums=(0,) if program.carries else ())
  traced = jitted.trace(*program.arguments)
  flops = float(operations.work(traced)[0])
  counted = Row(program.name, dtype, program.images, flops=flops, note=program.note)
  if not run:
    return counted
  start = time.perf_counter()
  compiled = traced.lower().compile()
  compile_s = time.perf_counter() - start
  memory.give_back()
  used: Any = compiled.memory_analysis()
  needed = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes
  chain = _Chain(compiled, program, mesh)
  step_s = chain.seconds(fed=False)
  fed_s = chain.seconds(fed=True) if program.host else None
  peak = peaks.of(mesh.devices.flat[0])
  return dataclasses.replace(
    counted,
    compile_s=compile_s,
    step_s=step_s,
    memory=needed - used.alias_size_in_bytes,
    mfu=flops / step_s / peak.flops(dtype) if peak else None,
    input_share=max(0.0, 1 - step_s / fed_s) if fed_s else None,
  )


class _Chain:
  """Calls of a compiled program, each with the state that the one before left."""

  def __init__(self, compiled: Any, program: cases.Program, mesh: Mesh):
    self.compiled, self.program, self.mesh = compiled, program, mesh
    self.first, *self.rest = program.arguments
    start = time.perf_counter()
    self._run(1, fed=False)
    once = max(time.perf_counter() - start, 1e-6)
    self.steps = int(np.clip(AIM / once, 1, MOST))

  def _run(self, steps: int, *, fed: bool) -> None:
    out = None
    for _ in range(steps):
      out = self.compiled(self.first, *self.rest)
      if self.program.carries:
        self.first = out[0]
      if (
        fed and self.program.host is not None
      ):  # as the training loop does: the next batch is placed while the step runs
        self.rest[0] = sharding.place_batch(self.program.host, self.mesh)
    jax.block_until_ready((out, self.rest))

  def seconds(self, *, fed: bool) -> float:
    """Of a call, in the shortest of three runs."""
    return timing.shortest(lambda: self._run(self.steps, fed=fed), 3) / self.steps


def rows_of(name: str, dtype: str, toy: bool, mesh: Mesh) -> Iterator[Row]:
  """Of one case. What goes wrong is a row."""
  try:
    for program in cases.CASES[name](dtype, toy, mesh):
      yield measured(program, dtype, mesh, run=not toy or name in RUN)
  except cases.Unavailable as e:
    yield Row(name, dtype, note=str(e))
  except Exception as e:
    why = 'out of memory' if 'RESOURCE_EXHAUSTED' in str(e) else reason(e, 80)
    yield Row(name, dtype, note=f'{FAILED}: {why}')


def known(path: pathlib.Path, machine: dict[str, Any]) -> dict[str, list[Row]]:
  """The rows of a file by case and type. Raises UserError for one of another machine."""
  if not path.exists():
    return {}
  saved = files.read_json(
    path, keys=('machine', 'rows'), mend='delete it, or give another: --out FILE'
  )
  if other := [k for k in ('device', 'jax', 'toy') if saved['machine'][k] != machine[k]]:
    raise UserError(
      f'{path} is of another {other[0]}: {saved["machine"][other[0]]}, not {machine[other[0]]}\n'
      '  give another file: --out FILE'
    )
  return {key: [Row(**row) for row in rows] for key, rows in saved['rows'].items()}


def save(path: pathlib.Path, machine: dict[str, Any], rows: dict[str, list[Row]]) -> None:
  """The file, and its table beside it."""
  plain = {key: [dataclasses.asdict(row) for row in of] for key, of in rows.items()}
  path.parent.mkdir(parents=True, exist_ok=True)
  with folders.whole(path) as part:
    part.write_text(json.dumps(dict(machine=machine, rows=plain), indent=1) + '\n')
  path.with_suffix('.md').write_text(markdown(machine, rows))


def markdown(machine: dict[str, Any], rows: dict[str, list[Row]]) -> str:
  peak = machine['peak'] or 'in no table of peaks, so there is no MFU'
  words = f'{machine["device"]} ({peak}), jax {machine["jax"]}, {machine["date"]}'
  head = ['', 'type', 'compile', 'step', 'images/s', 'memory', 'TFLOP', 'MFU', 'waits for input']
  lines = [[*_cells(row), row.note] for of in rows.values() for row in of]
  made = table.table('accelerator', [*head, ''], lines)
  return '\n'.join([words, '', *made.markdown()]) + '\n'


def _cells(row: Row) -> list[str]:
  shown = lambda value, text: '–' if value is None else text(value)
  return [
    row.name,
    row.dtype,
    shown(row.compile_s, '{:.0f} s'.format),
    shown(row.step_s, lambda s: f'{1e3 * s:,.1f} ms'),
    shown(row.step_s, lambda s: f'{row.images / s:,.3g}'),
    shown(row.memory, lambda m: f'{m / GB:.1f} GB'),
    shown(row.flops, lambda f: f'{f / 1e12:.3g}'),
    table.share(row.mfu, 0),
    table.share(row.input_share, 0),
  ]


def parsed(words: tuple[str, ...]) -> argparse.Namespace:
  parser = argparse.ArgumentParser('python -m benchmarks.accelerator', allow_abbrev=False)
  parser.add_argument('parts', nargs='*')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('accelerator.json'))
  parser.add_argument('--seconds', type=float, default=420.0)
  args = parser.parse_args(words)
  if unknown := [name for name in args.parts if name not in cases.CASES]:
    raise UserError(f'no part {unknown[0]!r}\n{nearest(unknown[0], cases.CASES)}')
  return args


def main(toy: bool, *words: str) -> list[str]:
  args, began = parsed(words), time.monotonic()
  timing.describe()
  jax.config.update('jax_enable_compilation_cache', toy)  # else nothing is compiled again
  device = jax.local_devices()[0]
  mesh, peak = Mesh(np.array([device]), ('data',)), peaks.of(device)
  about = f'{peak.float32:g} and {peak.bfloat16:g} TFLOP/s' if peak else ''
  date = datetime.date.today().isoformat()
  machine = dict(device=device.device_kind, peak=about, jax=jax.__version__, toy=toy, date=date)
  rows = known(args.out, machine)
  wanted = [
    (name, dtype) for name in args.parts or (TOY if toy else cases.CASES) for dtype in DTYPES
  ]
  missing = [key for key in wanted if ' '.join(key) not in rows]
  missing += [
    key for key in wanted if any(r.note.startswith(FAILED) for r in rows.get(' '.join(key), ()))
  ]
  for k, (name, dtype) in enumerate(missing):
    if time.monotonic() - began > args.seconds:
      left = len(missing) - k
      print(f'{left} of {len(wanted)} are left: the same command goes on', file=sys.stderr)
      break
    rows[f'{name} {dtype}'] = [*rows_of(name, dtype, toy, mesh)]
    save(args.out, machine, rows)
    for row in rows[f'{name} {dtype}']:
      print('  '.join([*_cells(row), row.note]), flush=True)
  print(f'{args.out} and {args.out.with_suffix(".md")}')
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
