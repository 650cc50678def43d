"""What steps gain where freed memory stays for the next: python -m benchmarks.kept_memory [NAME ..]

Trainings of the configs below at their published sizes and batches, in float32 on CPUs with glibc:
each in two processes one after the other, as usual and with car_jax/memory.py. CPU seconds of a
step (the shortest of several), its page faults, and the peak of the process. No limits: how much
is gained depends on the system. Without a name, SSN; the others take minutes.
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
from car_jax.errors import UserError, nearest

# by name, the config and the one of toy size
CASES = {
  'mose': ('configs/mose_lidc.py', 'configs/smoke.py:mose'),
  'ssn': ('configs/ssn_lidc.py:gtr', 'configs/smoke.py:ssn'),
  'ccdm': ('configs/ccdm_lidc.py', 'configs/smoke.py:ccdm'),
}
USUAL, KEPT = 'usual', 'kept'
REPEATS = 5


def measure(name: str, mode: str, toy: bool) -> None:
  """Prints a row: one step after the compilation, and the shortest of several more."""
  program = next(training(*CASES[name], 'float32', toy, sharding.make_mesh()))
  jitted, (state, *inputs) = jax.jit(program.function, donate_argnums=0), program.arguments
  if toy:
    jitted.trace(state, *inputs)
    return
  compiled = jitted.lower(state, *inputs).compile()
  memory.give_back()
  steps, page_faults = [], lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  with memory.kept() if mode == KEPT else contextlib.nullcontext():
    for _ in range(1 + REPEATS):
      start, faults = time.process_time(), page_faults()
      state, _ = compiled(state, *inputs)
      jax.block_until_ready(state)
      steps.append((time.process_time() - start, page_faults() - faults))
  seconds, faults = min(steps[1:])
  peak = timing.peak_bytes() / 1e9
  print(f'{program.name:22} {mode:6} {seconds:9.2f} {faults:9,} {peak:9.2f}', flush=True)


def main(toy: bool, *words: str) -> list[str]:
  *names, mode = words if words and words[-1] in (USUAL, KEPT) else (*words, '')
  if unknown := [name for name in names if name not in CASES]:
    raise UserError(f'no training {unknown[0]!r}\n{nearest(unknown[0], CASES)}')
  if mode:  # in this process
    if mode == KEPT:
      memory.one_heap()
    for name in names:
      measure(name, mode, toy)
    return []
  timing.describe()
  print('config                 memory  step, s    faults   peak, GB')
  runs = [(name, mode) for name in names or ('ssn',) for mode in (USUAL, KEPT)]
  if toy:
    for run in runs:
      measure(*run, toy)
    return []
  command = [sys.executable, '-m', 'benchmarks.kept_memory']
  return [' '.join(run) for run in runs if subprocess.run([*command, *run]).returncode]


if __name__ == '__main__':
  sys.exit(timing.command(main))
