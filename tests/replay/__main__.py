"""python -m tests.replay NAME DIR: replays every golden file in DIR; exit status 1 on a miss."""

import collections
import pathlib
import sys

from tests import replay


def main(argv: list[str]) -> int:
  if len(argv) != 2 or not any(pathlib.Path(argv[1]).glob('*.npz')):
    print('usage: python -m tests.replay NAME DIR (a folder of golden .npz files)', file=sys.stderr)
    return 2
  rows = replay.run(*argv)
  for row in rows:
    verdict = f'left out: {row.left_out}' if row.left_out else 'ok' if row.ok else 'MISS'
    print(f'{row.file} {row.key} {row.error:.3g} {row.tolerance:.3g} {verdict}')
  for reason, keys in collections.Counter(row.left_out for row in rows if row.left_out).items():
    print(f'{keys} left out: {reason}')
  left_out = sum(bool(row.left_out) for row in rows)
  failed = sum(not row.ok for row in rows)
  print(f'{len(rows) - failed - left_out} passed, {failed} failed')
  return 1 if failed or not rows else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
