"""How long commands take to answer: python -m benchmarks.starts

Each in a fresh process, shortest of several runs. Limit: 2 s; exit status 1 beyond it.
"""

import subprocess
import sys

from benchmarks import timing

LIMIT = 2.0
COMMANDS = {
  'import car_jax': ('-c', 'import car_jax'),
  'import car_jax.loop (jax, flax, orbax)': ('-c', 'import car_jax.loop'),
  'train.py --help': ('train.py', '--help'),
  'eval.py --help': ('eval.py', '--help'),
  'car-jax prepare --help': ('-m', 'car_jax', 'prepare', '--help'),
}
LIMITED = ('import car_jax', 'train.py --help')


def seconds(arguments: tuple[str, ...], repeats: int) -> float:
  start = lambda: (
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL).returncode
  )
  return timing.shortest(start, repeats)


def main(toy: bool) -> list[str]:
  slow, allowed = [], timing.allowed(LIMIT)
  for name, arguments in COMMANDS.items():
    best = seconds(arguments, 1 if toy else 3)
    limit = f'   limit {allowed:.1f}' if name in LIMITED else ''
    print(f'{name:42} {best:6.2f} s{limit}', flush=True)
    slow += [f'{name} {best:.2f} s'] if limit and best > allowed else []
  return slow


if __name__ == '__main__':
  sys.exit(timing.command(main))
