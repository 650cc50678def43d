"""Runs the notebooks of docs/tutorials and keeps their outputs: make tutorials [TUTORIALS=FILES].

Each runs in an empty folder. Progress bars are not kept.
"""

import os
import pathlib
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parents[1]
PROGRESS = re.compile(r'images?/s|s/ ?images?|%\|')


def run(path: pathlib.Path) -> None:
  """Executes one in place. Raises nbclient's CellExecutionError."""
  book = nbformat.read(path, as_version=4)
  with tempfile.TemporaryDirectory() as folder:
    place = dict(metadata=dict(path=folder))
    NotebookClient(book, timeout=600, record_timing=False, resources=place).execute()
  for cell in book.cells:
    if cell.cell_type == 'code':
      cell.execution_count, cell.outputs = None, [*lasting(cell.outputs)]
  book.metadata.language_info = dict(name='python', pygments_lexer='ipython3')
  nbformat.write(book, path)


def lasting(outputs: Iterable[Any]) -> Iterator[Any]:
  """Outputs without progress bars; printed text in one piece."""
  text = ''.join(o.text for o in outputs if o.output_type == 'stream')
  if failed := re.search(r'^(error:|.*command not found).*', text, re.MULTILINE):
    raise SystemExit(failed[0])  # a ! command that fails does not stop a notebook
  lines = (line.rpartition('\r')[2].rstrip() for line in text.splitlines())
  kept = '\n'.join(line for line in lines if not PROGRESS.search(line)).strip('\n')
  if kept:
    yield nbformat.v4.new_output(
      'stream', name='stdout', text=re.sub(r'\n\n+', '\n\n', kept) + '\n'
    )
  for output in outputs:
    if output.output_type != 'stream':
      output.pop('execution_count', None)
      if output.output_type == 'execute_result':
        output.execution_count = None
      yield output


def processor_seconds() -> float:
  """Of all children that have ended."""
  spent = resource.getrusage(resource.RUSAGE_CHILDREN)
  return spent.ru_utime + spent.ru_stime


def main(names: list[str]) -> None:
  os.environ['PATH'] = f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}'
  os.environ['PYTHONPATH'] = str(ROOT)
  for path in map(pathlib.Path, names or sorted((ROOT / 'docs/tutorials').glob('*.ipynb'))):
    start, used = time.monotonic(), processor_seconds()
    run(path)
    taken, used = time.monotonic() - start, processor_seconds() - used
    print(f'{path.name}: {taken:.0f} s, {used:.0f} s of processors', flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
