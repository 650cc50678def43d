"""Benchmarks, each in a process of its own: python -m benchmarks [NAME ...] [--toy]

All of them without a name. Exit status 1 if a limit was passed. --toy: tiny sizes, no limits, to
see that they run. For a GPU or TPU there is python -m benchmarks.accelerator.
"""

import subprocess
import sys

NAMES = (
  'starts',
  'metrics',
  'reliability',
  'steps',
  'kept_memory',
  'convolutions',
  'segmenters',
  'feeding',
  'generation',
  'masks',
)


def main(arguments: list[str]) -> int:
  toy = [a for a in arguments if a == '--toy']
  names = [a for a in arguments if a != '--toy'] or NAMES
  if unknown := [n for n in names if n not in NAMES]:
    print(f'error: no benchmark {unknown[0]!r}\n  known: {", ".join(NAMES)}', file=sys.stderr)
    return 2
  failed = []
  for name in names:
    print(f'--- {name}', flush=True)
    if subprocess.run([sys.executable, '-m', f'benchmarks.{name}', *toy]).returncode:
      failed.append(name)
  if failed:
    print(f'failed or beyond the limit: {", ".join(failed)}', file=sys.stderr)
  return int(bool(failed))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
