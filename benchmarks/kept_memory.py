"""What steps gain where freed memory stays for the next: python -m benchmarks.kept_memory [NAME ..]

Trainings of the configs below at their published sizes and batches, in float32 on CPUs with glibc:
each in two processes one after the other, as usual and with car_jax/memory.py. CPU seconds of a
step (the shortest of several), pages that it gets from the system, and the peak of the process. No
limits: how much is gained depends on the system. Without a name, SSN; the others take minutes.
"""

import contextlib
import resource
import subprocess
import sys
import time

import jax

from benchmarks import timing
from benchmarks.accelerator_cases import training
from car_jax import memory, sharding

# by name, the config and the one of toy size
CASES = {
  'mose': ('configs/mose_lidc.py', 'configs/smoke.py:mose'),
  'ssn': ('configs/ssn_lidc.py:gtr', 'configs/smoke.py:ssn'),
  'ccdm': ('configs/ccdm_lidc.py', 'configs/smoke.py:ccdm'),
}
USUAL, KEPT = 'usual', 'kept'
REPEATS = 5


def measure(name: str, way: str, toy: bool) -> None:
  """Prints a row: one step after the compilation, and the shortest of several more."""
  program = next(training(*CASES[name], 'float32', toy, sharding.make_mesh()))
  jitted, (state, *rest) = jax.jit(program.function, donate_argnums=0), program.arguments
  if toy:
    jitted.trace(state, *rest)
    return
  compiled = jitted.lower(state, *rest).compile()
  memory.give_back()
  rows, pages = [], lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  with memory.kept() if way == KEPT else contextlib.nullcontext():
    for _ in range(1 + REPEATS):
      start, before = time.process_time(), pages()
      state, _ = compiled(state, *rest)
      jax.block_until_ready(state)
      rows.append((time.process_time() - start, pages() - before))
  seconds, taken = min(rows[1:])
  peak = timing.peak_bytes() / 1e9
  print(f'{program.name:22} {way:6} {seconds:9.2f} {taken:9,} {peak:9.2f}', flush=True)


def main(toy: bool, *names: str) -> list[str]:
  if len(names) == 2 and names[1] in (USUAL, KEPT):
    if names[1] == KEPT:
      memory.one_heap()
    measure(*names, toy)
    return []
  timing.describe()
  print('config                 memory  step, s    pages    peak, GB')
  for name in names or ('ssn',):
    for way in (USUAL, KEPT):
      if toy:
        measure(name, way, toy)
      else:
        subprocess.run([sys.executable, '-m', 'benchmarks.kept_memory', name, way], check=True)
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
