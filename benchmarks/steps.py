"""Time and memory of training steps, with limits: python -m benchmarks.steps [CASE ..]

Published nets in float32 on made-up images, small enough for two cores: compilation, then the
shortest of several steps, which keep memory as in training (car_jax/memory.py); each training in a
process of its own, since memory is the peak of a process. Limits are there to notice what became
slower; exit status 1 beyond one of them.
"""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import accelerator, timing
from benchmarks.accelerator_cases import training
from car_jax import memory
from car_jax.errors import UserError, nearest

GB = 1e9


@dataclasses.dataclass(frozen=True)
class Case:
  """A training: its config, the one of toy size, changes of the former, limits of the mean step."""

  config: str
  toy: str
  changes: dict[str, str]
  seconds: float
  bytes: float = float('inf')


def sized(batch: int, size: int = 128) -> dict[str, str]:
  return {'data.batch': str(batch), 'data.size': str(size)}


SMALL = sized(12, 64)
WIDE = {'data.batch': '2', 'data.source.size': '(128, 256)', 'data.target.size': '(128, 256)'}
CASES = {
  'car': Case('configs/car_lidc.py', 'car', sized(4), 7.5),
  'mose': Case('configs/mose_lidc.py', 'mose', sized(4), 2.7),
  'mose_cityscapes': Case('configs/mose_cityscapes.py', 'mose', sized(2), 2.7, 4 * GB),
  'prob_unet': Case('configs/prob_unet_lidc.py:port', 'prob_unet', SMALL, 1.7),
  'ssn': Case('configs/ssn_lidc.py:gtr', 'ssn', SMALL, 0.9),
  'phiseg': Case('configs/phiseg_lidc.py', 'phiseg', SMALL, 4.0),
  'ccdm': Case('configs/ccdm_lidc.py', 'ccdm', SMALL, 1.7),
  'abn': Case('configs/sac_gta5.py:resnet101_base', 'abn', WIDE | {'data.target.groups': '2'}, 4.0),
  'sac': Case('configs/sac_gta5.py:resnet101', 'sac', WIDE | {'data.target.groups': '1'}, 12.0),
}
TOY = 'mose', 'ssn'  # traced at toy size


def measure(name: str, toy: bool) -> list[str]:
  """Prints a row for every kind of step and one for their mean; what was beyond a limit."""
  case, mean = CASES[name], 0.0
  mesh = Mesh(np.array(jax.devices()[:1]), ('data',))
  toy_config, changes = f'configs/smoke.py:{case.toy}', [*case.changes.items()]
  for program in training(case.config, toy_config, 'float32', toy, mesh, changes):
    with memory.kept():
      row = accelerator.measured(program, 'float32', mesh, run=not toy)
    compile_s, step_s = row.compile_s or 0.0, row.step_s or 0.0
    print(f'{program.name:30} compile {compile_s:6.1f} s   step {step_s:6.3f} s', flush=True)
    mean += program.share * step_s
  peak, limit = timing.peak_bytes(), timing.allowed(case.seconds)
  print(f'{"":17} mean {mean:.3f} s (limit {limit:.1f} s)   peak memory {peak / GB:.2f} GB')
  slow = [f'{name}: step {mean:.2f} s'] if mean > limit else []
  return slow + ([f'{name}: {peak / GB:.2f} GB'] if peak > case.bytes else [])


def main(toy: bool, *names: str) -> list[str]:
  if unknown := [name for name in names if name not in CASES]:
    raise UserError(f'no training {unknown[0]!r}\n{nearest(unknown[0], CASES)}')
  if len(names) == 1:  # in this process
    memory.one_heap()
    return measure(*names, toy)
  timing.describe()
  if toy:
    return [what for name in names or TOY for what in measure(name, toy)]
  command = [sys.executable, '-m', 'benchmarks.steps']
  return [name for name in names or CASES if subprocess.run([*command, name]).returncode]


if __name__ == '__main__':
  sys.exit(timing.command(main))
