"""Where a run's numbers go: metrics.jsonl, TensorBoard (through clu) and one console line."""

import contextlib
import importlib.util
import json
import pathlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from car_jax.evaluate import folders


class _TensorBoardX:
  """Stands where clu expects TensorFlow's summary writer, so that TensorFlow is not needed."""

  def __init__(self, log_dir: str):
    from tensorboardX import SummaryWriter

    self._writer = SummaryWriter(log_dir)

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    for key, value in scalars.items():
      self._writer.add_scalar(key, float(value), step)

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


def _tensorboard(folder: pathlib.Path) -> Any:
  if importlib.util.find_spec('tensorflow') is None:
    stand_in: Any = types.ModuleType('clu.metric_writers.summary_writer')
    stand_in.SummaryWriter = _TensorBoardX
    sys.modules.setdefault(stand_in.__name__, stand_in)
  from clu import metric_writers

  return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))


class Writers:
  """Process 0 writes; elsewhere every call does nothing.

  A resumed run drops the lines that an interrupted one wrote after its last checkpoint.
  """

  def __init__(self, workdir: pathlib.Path, active: bool, start: int = 0):
    self._file = self._board = None
    if not active:
      return
    path = workdir / 'metrics.jsonl'
    with folders.whole(path) as part:
      part.write_text(''.join(line for line, step in _records(path) if step <= start))
    self._file = path.open('a')
    self._board = _tensorboard(workdir / 'tensorboard')

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


def _records(path: pathlib.Path) -> Iterator[tuple[str, int]]:
  """The lines of a file with their steps; one that a crash cut short or spoiled is dropped."""
  for line in path.read_text(errors='replace').splitlines(keepends=True) if path.exists() else ():
    with contextlib.suppress(ValueError, KeyError, TypeError):
      yield line, int(json.loads(line)['step'])
