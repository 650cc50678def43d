"""How long commands take to answer: python -m benchmarks.starts

Each in a fresh process, shortest of several runs. Limit: 2 s; exit status 1 beyond it.
"""

import subprocess
import sys
import time

REPEATS, LIMIT = 3, 2.0
COMMANDS = {
  'import car_jax': ('-c', 'import car_jax'),
  'import car_jax.loop (jax, flax, orbax)': ('-c', 'import car_jax.loop'),
  'train.py --help': ('train.py', '--help'),
  'eval.py --help': ('eval.py', '--help'),
  'python -m datasets.prepare --help': ('-m', 'datasets.prepare', '--help'),
}
LIMITED = ('import car_jax', 'train.py --help')


def seconds(arguments: tuple[str, ...]) -> float:
  best = float('inf')
  for _ in range(REPEATS):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    best = min(best, time.perf_counter() - start)
  return best


def main() -> int:
  slow = False
  for name, arguments in COMMANDS.items():
    found = seconds(arguments)
    limit = f'   limit {LIMIT}' if name in LIMITED else ''
    print(f'{name:42} {found:6.2f} s{limit}', flush=True)
    slow |= bool(limit) and found > LIMIT
  return int(slow)


if __name__ == '__main__':
  sys.exit(main())
