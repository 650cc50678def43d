"""Records -> batches in bytes (data/compact.py says how), read ahead by grain.

Batch k of training is a pure function of (seed, k, host): nothing but the step is needed to
resume, and the hosts' batches together are the batch that one host would see. An epoch is a new
order of all records, cut to whole batches.
"""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import unittest.mock
import zlib
from collections.abc import Generator, Sequence
from typing import Any

import jax
import numpy as np

from car_jax.data import class_flips, transforms
from car_jax.data import options as data_options
from car_jax.data.options import Data
from car_jax.data.sources import DataInfo, Source, Stream
from car_jax.errors import UserError

Batch = dict[str, np.ndarray]


def train_batches(
  source: Source | Stream,
  info: DataInfo,
  config: Any,
  *,
  seed: int,
  start_step: int = 0,
  host: int = 0,
  hosts: int = 1,
) -> Generator[Batch, None, None]:
  """This host's share of batches start_step, start_step + 1, ... without end.

  Raises UserError when the split is smaller than a batch or the images differ in size.
  """
  if isinstance(source, Stream):
    yield from source.train_batches(seed=seed, start_step=start_step, host=host, hosts=hosts)
    return
  data = data_options.of(config)
  check_enough(f'the training split of {info.name}', len(source), data.batch)
  order = _Order(len(source), data.batch, seed, host, hosts)
  rows = _Rows(source, info, data, order, start_step * order.local)
  yield from _read(rows, order.local, data)


def check_enough(what: str, images: int, batch: int) -> None:
  """Raises UserError for fewer images than a batch has; what it advises all devices share."""
  if images < batch:
    most = images - images % jax.device_count()
    if most:
      mend = f'use --config.data.batch={most} or less'
    else:
      few = f'use {images} devices or fewer, and --config.data.batch={images} or less'
      mend = few if images else 'choose another split'
    raise UserError(f'{what} has {images} images, fewer than a batch of {batch}\n  {mend}')


def eval_batches(
  source: Source,
  info: DataInfo,
  config: Any,
  *,
  host: int = 0,
  hosts: int = 1,
  devices: int = 1,
) -> Generator[Batch, None, None]:
  """Every record once, in order; images of a batch have one size.

  A batch has as many rows for each of the `devices` (of all hosts) as the config's needs, and is
  filled up with rows of valid=False. Where images of several sizes would leave more than half of
  the rows to these, it has one row for each device.
  """
  data = data_options.of(config)
  least = max(devices, hosts)
  batch = -(-(data.eval_batch or data.batch) // least) * least
  order = _Once(shapes(source, data), batch, least, host, hosts)
  rows = _Rows(source, info, data, order, 0)
  yield from _read(rows, order.local, dataclasses.replace(data, workers=0))  # soon read


def cut(source: Source, config: Any) -> str:
  """A line on what evaluation does not see of the images, '' where it sees all.

  Raises UserError where an image is smaller than config.data.eval_size, and nothing pads it.
  """
  data = data_options.of(config)
  if not (size := data.eval_size):
    return ''
  every = source.sizes
  small = [i for i, shape in enumerate(every) if min(shape) < size]
  if small and not data.pad:
    transforms.CentreCrop(size, 'eval_size')(source[small[0]])
  if not (larger := [shape for shape in every if max(shape) > size]):
    return ''
  (h, w), share = max(larger), f'{len(larger):,} of {len(every):,} images'
  return (
    f'evaluation sees the central {size}x{size} pixels of {share} (the largest: {w}x{h}), by '
    'config.data.eval_size; 0 is whole images'
  )


def shapes(source: Source, config: Any) -> list[tuple[int, int]]:
  """What tells the shapes of an evaluation's examples apart: the images' sizes, before data.fit."""
  if size := data_options.of(config).eval_size:
    return [(size, size)] * len(source)
  return source.sizes


def steps_per_epoch(count: int, batch: int) -> int:
  return max(1, count // batch)


@functools.lru_cache(maxsize=4)
def permutation(count: int, *seed: int) -> np.ndarray:
  """The order of an epoch's records."""
  return np.random.default_rng(seed).permutation(count)


class _Once:
  """As _Order, for evaluation: every record once, in order, a run of equal shapes at a time."""

  seed = None

  def __init__(self, shapes: Sequence[Any], batch: int, least: int, host: int, hosts: int):
    check_shared(batch, hosts)
    starts = [i for i in range(len(shapes)) if not i or shapes[i] != shapes[i - 1]]
    runs = [*itertools.pairwise([*starts, len(shapes)])]
    rows = lambda size: sum(-(-(end - start) // size) * size for start, end in runs)
    if len(runs) > 1 and rows(batch) > 2 * len(shapes):
      batch = min(batch, least)
    self.local, self._first = batch // hosts, host * (batch // hosts)
    self._batches = [(k, end) for start, end in runs for k in range(start, end, batch)]

  def __len__(self) -> int:
    return len(self._batches) * self.local

  def __getitem__(self, k: int) -> tuple[int, int, bool]:
    number, row = divmod(k, self.local)
    start, end = self._batches[number]
    place = start + self._first + row
    return min(place, end - 1), place, place < end


def check_shared(batch: int, hosts: int) -> None:
  if batch % hosts:
    raise UserError(f'a batch of {batch} cannot be shared by {hosts} processes')


class _Order:
  """Row k of this host -> (which record, its place in all hosts' stream, whether it counts)."""

  def __init__(self, count: int, batch: int, seed: int, host: int, hosts: int):
    check_shared(batch, hosts)
    self.count, self.batch, self.seed, self.host = count, batch, seed, host
    self.local = batch // hosts
    self.epoch_steps = steps_per_epoch(count, batch)

  def __len__(self) -> int:
    return 2**40 * self.local

  def __getitem__(self, k: int) -> tuple[int, int, bool]:
    step, row = divmod(k, self.local)
    place = step * self.batch + self.host * self.local + row
    epoch, step = divmod(step, self.epoch_steps)
    within = step * self.batch + self.host * self.local + row
    return int(permutation(self.count, self.seed, epoch)[within]), place, True


class _Rows:
  """Row k of this host as a finished example: grain's random-access source."""

  def __init__(self, source: Source, info: DataInfo, data: Data, order: _Order | _Once, skip: int):
    self.source, self.info, self.order, self.skip = source, info, order, skip
    train = order.seed is not None
    self.chain = transforms.from_config(data, train, info.ignore_label)
    if info.unknown_label is not None and info.ignore_label is None:
      raise ValueError(f'{info.name} has an unknown_label and no ignore_label to put in its place')
    self.corrupt = None
    if data.corruption and not train:
      from car_jax.data import corruptions  # which brings OpenCV

      self.corrupt = corruptions.from_config(data.corruption)
    if info.flips:
      self.modes = class_flips.all_modes(info, train and data.class_flip_black_box)

  def __len__(self) -> int:
    return len(self.order) - self.skip

  def __getitem__(self, k: int) -> dict[str, Any]:
    index, place, valid = self.order[k + self.skip]
    train = self.order.seed is not None
    rng = np.random.default_rng([self.order.seed or 0, place, 1])
    example = self.source[index]
    if self.corrupt:
      example = self.corrupt(example)
    example = _transformed(example, self.chain, rng)
    if self.info.flips:
      example = self.modes(example, rng)
    return _finished(example, self.info, valid, rng if train else None)


def _transformed(example: dict[str, Any], chain: list, rng: np.random.Generator) -> dict[str, Any]:
  """The transforms in turn; a black-box map goes through them as one more label map."""
  extra = example.get('black_box')
  if extra is not None:
    example = example | {'labels': np.concatenate([example['labels'], extra[None]])}
  for transform in chain:
    example = transform(example, rng)
  if extra is None:
    return example
  return example | {'labels': example['labels'][:-1], 'black_box': example['labels'][-1]}


def _finished(
  example: dict[str, Any], info: DataInfo, valid: bool, rng: np.random.Generator | None
) -> dict[str, Any]:
  """The batch's keys for one example; with `rng`, one reader drawn by its weight."""
  if example['image'].dtype != np.uint8:
    raise UserError(f'image {example["id"]} is {example["image"].dtype}; records hold uint8')
  labels = _whole_numbers(example['labels'])
  unknown = {}
  if info.unknown_label is not None:
    strange = labels == info.unknown_label
    labels = np.where(strange, labels.dtype.type(info.ignore_label), labels)
    unknown['unknown'] = strange.any(0)
  m = len(labels)
  share = example.get('label_weight')  # None: all the same
  row = {
    'image': example['image'],
    'labels': np.concatenate([labels, np.repeat(labels[:1], info.readers - m, 0)]),
    'label_weight': _padded(np.full(m, 1 / m) if share is None else share, info.readers),
    'valid': np.bool_(valid),
    'example': np.uint32(zlib.crc32(example['id'].encode())),
    'id': example['id'],
    'group': example['group'],
  } | unknown
  if 'black_box' in example:
    row['black_box'] = _whole_numbers(example['black_box'])
  if rng is not None:
    drawn = rng.integers(m) if share is None else np.searchsorted(np.cumsum(share), rng.random())
    row['reader'] = np.uint8(min(int(drawn), m - 1))
  return row


def _whole_numbers(labels: Any) -> np.ndarray:
  """Bytes stay bytes."""
  labels = np.asarray(labels)
  return labels if labels.dtype == np.uint8 else labels.astype(np.int32)


def _padded(weight: np.ndarray, length: int) -> np.ndarray:
  return np.pad(weight, (0, length - len(weight))).astype(np.float32)


def _read(rows: _Rows, size: int, data: Data) -> Generator[Batch, None, None]:
  import grain

  batches = grain.MapDataset.source(rows).batch(size, drop_remainder=False, batch_fn=_stacked)
  yield from ahead_of_use(batches, data.threads, data.workers)


def ahead_of_use(batches: Any, threads: int, workers: int) -> Generator[Batch, None, None]:
  """The elements of a grain.MapDataset in order, made ahead by threads, or by `workers` processes
  of so many threads each."""
  import grain
  from absl import flags

  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 1) * 2)
  stream = batches.to_iter_dataset(options)
  if workers:
    if not flags.FLAGS.is_parsed():  # grain's processes ask for flags of theirs
      flags.FLAGS.mark_as_parsed()
    _start_resource_tracker()
    processes = grain.MultiprocessingOptions(num_workers=workers)
    stream = stream.mp_prefetch(processes, worker_init_fn=_follow_the_parent)
  with contextlib.closing(iter(stream)) as iterator:
    try:
      yield from iterator
    except RuntimeError as e:
      if 'terminated unexpectedly' not in str(e):
        raise
      raise UserError(
        'a worker process that makes batches was ended from outside, for lack of memory perhaps\n'
        f'  use fewer of them than --config.data.workers={workers}: each keeps what the data set '
        'keeps in memory'
      ) from e


def _start_resource_tracker() -> None:
  """Python's own process that frees shared memory: what grain's workers leave there when a run ends
  is freed without a warning."""
  from multiprocessing import resource_tracker

  with unittest.mock.patch.dict(os.environ, PYTHONWARNINGS='ignore::UserWarning'):
    resource_tracker.ensure_running()


def _follow_the_parent(worker: int, workers: int) -> None:
  """A worker leaves signals to its parent, and ends with it however that ends."""

  def follow() -> None:
    if parent := multiprocessing.parent_process():
      parent.join()
      os._exit(0)

  threading.Thread(target=follow, daemon=True).start()
  for wish in (signal.SIGINT, signal.SIGTERM):
    signal.signal(wish, signal.SIG_IGN)


def _stacked(examples: Any) -> Batch:
  for what, size in (('image', lambda x: x.shape[:2]), ('labels', lambda x: x.shape[-2:])):
    shapes = {size(e[what]): e['id'] for e in examples}
    if len(shapes) > 1:
      (a, b), *_ = zip(shapes.items(), list(shapes.items())[1:], strict=False)
      raise UserError(
        f'{what.rstrip("s")}s of one batch differ in size (rows, columns): '
        f'{a[1]} is {a[0]}, {b[1]} is {b[0]}\n'
        '  set config.data.size to crop them alike'
      )
  return {k: np.stack([np.asarray(e[k]) for e in examples]) for k in examples[0]}
