"""Where a run's numbers go: metrics.jsonl, TensorBoard (through clu) and one console line."""

import json
import pathlib
import sys
import time
import types
from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

from car_jax.evaluate import folders


class _TensorBoardX:
  """Stands where clu expects TensorFlow's summary writer, so that TensorFlow is not needed."""

  def __init__(self, log_dir: str, start: int = 0):
    from tensorboardX import SummaryWriter

    # An earlier process may have written steps after the checkpoint that the run continues from.
    # Its files are named by the second: two of one second would be one.
    suffix = f'.{time.time_ns()}'
    self._writer = SummaryWriter(log_dir, purge_step=start + 1, filename_suffix=suffix)

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    for key, value in scalars.items():
      self._writer.add_scalar(key, float(value), step)

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def _tensorboard(folder: pathlib.Path, start: int) -> Any:
  stand_in: Any = types.ModuleType('clu.metric_writers.summary_writer')
  stand_in.SummaryWriter = _TensorBoardX
  sys.modules.setdefault(stand_in.__name__, stand_in)
  from clu import metric_writers

  return metric_writers.AsyncWriter(_TensorBoardX(str(folder), start))


class Writers:
  """Process 0 writes; elsewhere every call does nothing.

  A resumed run drops the lines that an interrupted one wrote after its last checkpoint.
  """

  def __init__(self, workdir: pathlib.Path, active: bool, start: int = 0):
    self._file: IO[str] | None = None
    self._board: Any = None
    if not active:
      return
    path = workdir / 'metrics.jsonl'
    rows = [(line, row) for line, row in records(path) if row['step'] <= start]
    self._keys = {key for _, row in rows if row['step'] == start for key in row}
    with folders.whole(path) as part:
      part.write_text(''.join(line for line, _ in rows))
    self._file = path.open('a')
    self._board = _tensorboard(workdir / 'tensorboard', start)

  def recorded(self, keys: Collection[str]) -> bool:
    """Whether the step that the run continues from has all these numbers."""
    return self._file is None or self._keys >= {*keys}

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    if self._file:
      self._file.write(json.dumps({'step': step, **values}) + '\n')
      self._file.flush()
      self._board.write_scalars(step, values)

  def __enter__(self) -> 'Writers':
    return self

  def __exit__(self, *_: Any) -> None:
    if self._file:
      self._board.close()
      self._file.close()


def records(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """The lines of a file and what they say; those that a crash cut short or spoiled are counted."""
  lines = path.read_text(errors='replace').splitlines(keepends=True) if path.exists() else []
  spoiled = 0
  for line in lines:
    try:
      row = json.loads(line)
      valid = line.endswith('\n') and type(row['step']) is int
    except (ValueError, LookupError, TypeError, RecursionError):
      valid = False
    if valid:
      yield line, row
    else:
      spoiled += 1
  if spoiled:
    print(f'warning: {path}: {spoiled} damaged line(s) left out', file=sys.stderr, flush=True)
