"""Where a run's numbers, pictures and texts go: metrics.jsonl, TensorBoard and W&B, through clu."""

import contextlib
import html
import json
import os
import pathlib
import sys
import tempfile
import time
import types
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from flax.traverse_util import flatten_dict

from car_jax import folders, paths
from car_jax.errors import package, reading


def _summary_writer(folder: str, *_: Any) -> 'TensorBoard':
  return TensorBoard(pathlib.Path(folder), 0)


# Clu's import asks for TensorFlow's summary writer; who asks clu for one gets tensorboardX's.
_stand_in: Any = types.ModuleType('clu.metric_writers.summary_writer')
_stand_in.SummaryWriter = _summary_writer
sys.modules.setdefault(_stand_in.__name__, _stand_in)
from clu import metric_writers  # noqa: E402

EVERY = 30.0  # seconds between uploads to a bucket


class Writer(metric_writers.MetricWriter):
  """What a writer does not write it passes over."""

  def _passed_over(self, *_: Any, **__: Any) -> None:
    pass

  write_scalars = write_images = write_texts = write_hparams = _passed_over
  write_summaries = write_videos = write_audios = write_histograms = _passed_over
  flush = close = _passed_over


class JsonLines(Writer):
  """A file with a line for each call of write_scalars.

  The lines that an interrupted run wrote after step `start` are dropped. keys: what is recorded of
  that step.
  """

  def __init__(self, path: pathlib.Path, start: int):
    rows = [(line, row) for line, row in records(path) if row['step'] <= start]
    self.keys = {key for _, row in rows if row['step'] == start for key in row}
    with folders.whole(path) as part:
      part.write_text(''.join(line for line, _ in rows))
    self._file: IO[str] = path.open('a')

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    self._file.write(json.dumps({'step': step, **scalars}) + '\n')
    self._file.flush()

  def close(self) -> None:
    self._file.close()


class TensorBoard(Writer):
  """Event files by tensorboardX; TensorBoard forgets what older ones say of steps after `start`."""

  def __init__(self, folder: pathlib.Path, start: int):
    from tensorboardX import SummaryWriter

    # Files are named by the second: two of one second would be one.
    suffix = f'.{time.time_ns()}'
    self._to = SummaryWriter(str(folder), purge_step=start + 1, filename_suffix=suffix)

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    for key, value in scalars.items():
      self._to.add_scalar(key, float(value), step)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    for key, picture in images.items():
      self._to.add_image(key, picture, step, dataformats='HWC')

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    for key, text in texts.items():
      self._to.add_text(key, '    ' + text.replace('\n', '\n    '), step)  # Markdown, as it is

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    from tensorboardX import summary

    for part in summary.hparams(dict(hparams), {}):
      self._to.file_writer.add_summary(part)

  def flush(self) -> None:
    self._to.flush()

  def close(self) -> None:
    self._to.close()


class WandB(Writer):
  """A run of Weights & Biases; continuing a workdir continues it.

  The project is $WANDB_PROJECT, or car_jax. W&B forgets no steps: those that an interrupted run
  took after its last checkpoint are there twice.
  """

  def __init__(self, workdir: pathlib.Path, place: pathlib.Path):
    """place: the folder of this machine that wandb keeps its own files in."""
    self._wandb = _wandb()
    known = workdir / 'wandb.json'
    name = json.loads(known.read_text())['id'] if known.exists() else uuid.uuid4().hex[:12]
    with reading('wandb', 'a run', 'log in with: wandb login; or set WANDB_MODE=offline'):
      self._run = self._wandb.init(
        project=os.environ.get('WANDB_PROJECT', 'car_jax'),
        name=paths.absolute(workdir).name,
        id=name,
        resume='allow',
        dir=str(place),
      )
    with folders.whole(known) as part:
      part.write_text(json.dumps(dict(id=name)))
    self._run.define_metric('*', step_metric='step')

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    self._run.log({'step': step, **scalars})

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    self._run.log({'step': step} | {k: self._wandb.Image(v) for k, v in images.items()})

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    pre = {k: self._wandb.Html(f'<pre>{html.escape(v)}</pre>') for k, v in texts.items()}
    self._run.log({'step': step} | pre)

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    self._run.config.update(dict(hparams), allow_val_change=True)

  def close(self) -> None:
    self._run.finish()


class Uploads(Writer):
  """Copies what `writers` write to a folder of this machine into a bucket's.

  Every EVERY seconds, by `flush` and at the end.
  """

  def __init__(self, here: pathlib.Path, there: pathlib.Path, writers: Sequence[Writer]):
    self._here, self._there, self._writers = here, there, writers
    self._sizes: dict[pathlib.Path, int] = {}
    self._last = time.monotonic()

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    if time.monotonic() - self._last > EVERY:
      for writer in self._writers:
        writer.flush()
      self.flush()

  def flush(self) -> None:
    self._last = time.monotonic()
    files, root = paths.filesystem(self._there)
    for path in paths.files_below(self._here):
      size = path.stat().st_size  # files only grow
      if self._sizes.get(path) != size:
        files.put_file(str(path), f'{root}/{path.relative_to(self._here).as_posix()}')
        self._sizes[path] = size

  close = flush


class Writers:
  """All writers of a run. Process 0 writes; elsewhere every call does nothing.

  kinds: tensorboard, wandb, besides metrics.jsonl, which continuing a run reads. A bucket's workdir
  gets copies of files that are written on this machine.
  """

  def __init__(
    self, workdir: pathlib.Path, active: bool, start: int = 0, kinds: Collection[str] = ()
  ):
    self._closing, self._to, self._keys = contextlib.ExitStack(), None, None
    if not active:
      return
    with contextlib.ExitStack() as stack:
      own = out = workdir  # wandb's own files, and the record
      made: list[Writer] = []
      if paths.is_remote(workdir):
        own = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='car_jax-')))
        (out := own / 'record').mkdir()
        if (workdir / 'metrics.jsonl').exists():
          (out / 'metrics.jsonl').write_bytes((workdir / 'metrics.jsonl').read_bytes())
        uploads = [Uploads(out, workdir, made)]
        stack.callback(uploads[0].close)  # after the others
      else:
        uploads = []
      made.append(lines := JsonLines(out / 'metrics.jsonl', start))
      stack.callback(lines.close)
      for kind in kinds:
        writer = WandB(workdir, own) if kind == 'wandb' else TensorBoard(out / 'tensorboard', start)
        made.append(metric_writers.AsyncWriter(writer))
        stack.callback(made[-1].close)
      self._to, self._keys = metric_writers.MultiWriter([*made, *uploads]), lines.keys
      self._closing = stack.pop_all()

  def recorded(self, keys: Collection[str]) -> bool:
    """Whether the step that the run continues from has all these numbers."""
    return self._keys is None or self._keys >= {*keys}

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    if self._to:
      self._to.write_scalars(step, values)

  def pictures(self, step: int, values: Mapping[str, np.ndarray]) -> None:
    """values: pictures [H, W, 3] uint8."""
    if self._to and values:
      self._to.write_images(step, values)

  def config(self, step: int, config: Mapping[str, Any]) -> None:
    """The run's config, as a text and as single values."""
    if self._to:
      self._to.write_texts(step, {'config': json.dumps(config, indent=1)})
      flat = flatten_dict(dict(config), sep='.')
      plain = lambda v: v if isinstance(v, (bool, int, float, str)) else json.dumps(v)
      self._to.write_hparams({k: plain(v) for k, v in flat.items()})

  def flush(self) -> None:
    """What was written so far is where it belongs."""
    if self._to:
      self._to.flush()

  def __enter__(self) -> 'Writers':
    return self

  def __exit__(self, *_: Any) -> None:
    self._closing.close()


def check(kinds: Collection[str]) -> None:
  """Raises UserError for a writer whose package is not installed."""
  if 'wandb' in kinds:
    _wandb()


def _wandb() -> Any:
  return package('wandb', 'wandb', "config.writers: 'wandb'")


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
