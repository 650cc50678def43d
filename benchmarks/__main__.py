"""All benchmarks, each in a process of its own: python -m benchmarks

About five minutes on an idle machine. Exit status 1 if a limit was passed.
"""

import subprocess
import sys

NAMES = (
  'starts',
  'metrics',
  'reliability',
  'car_steps',
  'mose_steps',
  'sac_steps',
  'views',
  'feeding',
)


def main() -> int:
  failed = []
  for name in NAMES:
    print(f'--- {name}', flush=True)
    if subprocess.run([sys.executable, '-m', f'benchmarks.{name}']).returncode:
      failed.append(name)
  if failed:
    print(f'beyond the limit: {", ".join(failed)}', file=sys.stderr)
  return int(bool(failed))


if __name__ == '__main__':
  sys.exit(main())
