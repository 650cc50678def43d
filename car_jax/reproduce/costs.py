"""What a training costs, before it runs: counted by shapes, on blank images of the right sizes.

Counted as in operations.py: floating-point operations of a step, the bytes that they read and
write, and the bytes of arrays, state and batch among them, that are alive at once. Assumed: what an
accelerator does in a second.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from car_jax import loop, operations
from car_jax.data import compact, opening, options, pipeline, sources
from car_jax.datasets import prepare
from car_jax.reproduce import experiments
from car_jax.reproduce.experiments import Source

CYCLE = 250  # steps, over which kinds of steps are averaged: as long as CAR's


@dataclasses.dataclass(frozen=True)
class Rate:
  """What an accelerator does in a second: operations, and bytes from and to its memory."""

  flops: float
  bytes: float
  words: str


@dataclasses.dataclass(frozen=True)
class Cost:
  """Of one training: steps; operations of one, bytes that it moves, bytes that it needs."""

  steps: int
  flops: float
  moved: float
  memory: int

  def hours(self, rate: Rate) -> tuple[float, float]:
    """By operations alone, and by bytes alone."""
    hours = self.steps / 3600
    return hours * self.flops / rate.flops, hours * self.moved / rate.bytes


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a training begins with: a config, its data and method, state, first batch, which is in
  bytes (data/compact.py)."""

  config: ConfigDict
  dataset: sources.Dataset
  method: Any
  state: Any
  batch: pipeline.Batch

  @property
  def kinds(self) -> collections.Counter:
    """Kind of step (the method's phase) -> how many there are of it in a CYCLE."""
    return collections.Counter(self.method.phase(step, self.state) for step in range(CYCLE))


def of(config: ConfigDict, dataset: sources.Dataset) -> Cost:
  """Of a training run on such data, which may be blank. Nothing is compiled or run. UserError."""
  return counted(setting(config, dataset))


def counted(begun: Setting) -> Cost:
  """Of a training that begins so."""
  kinds, batch = begun.kinds, compact.expanded(begun.batch)
  steps = {kind: _step(begun.method, kind, begun.state, batch) for kind in kinds}
  flops, moved = np.sum([steps[kind][0] * kinds[kind] for kind in kinds], axis=0) / CYCLE
  memory = max(m for _, m in steps.values())
  return Cost(begun.config.steps, float(flops), float(moved), memory)


def blank(
  config: ConfigDict, given: Mapping[str, Source], seen: Mapping[str, Mapping[str, int]]
) -> sources.Dataset:
  """The data of a config as black images of the right size and number, without a file.

  given: data set -> its source; seen: data set -> examples by split. Others are opened as they are.
  A file of class counts, which an earlier training makes, is struck out of the config. UserError.
  """
  if config.data.get('target'):
    config.data.target.counts = ''

  def records(data: options.Data) -> sources.Dataset:
    name = _bare(data.name)
    return _blank(data, given[name], seen[name]) if name in given else data.records()

  return opening.open_dataset(config.data, records)


def published(config: ConfigDict) -> sources.Dataset:
  """`blank`, of the published sizes and numbers, for a config of a published training."""
  streets = experiments.FLIPPED if config.data.get('class_flips') else experiments.ADAPTED
  known = experiments.LIDC_V1, experiments.LIDC_V2, experiments.GTA5, experiments.SYNTHIA, streets
  given = {source.data: source for source in known}
  return blank(config, given, {k: dict(source.counts[0]) for k, source in given.items()})


def setting(config: ConfigDict, dataset: sources.Dataset) -> Setting:
  """The beginning of a training. Raises UserError."""
  data = options.of(config.data)
  source = dataset.split(data.train)
  method = loop.build_method(config, dataset.info, len(source))
  kw = dict(seed=config.seed, start_step=0, host=0, hosts=1)
  data = dataclasses.replace(data, workers=0)
  with contextlib.closing(pipeline.train_batches(source, dataset.info, data, **kw)) as stream:
    batch = compact.numbers(next(stream))
  state = method.init(config.seed, compact.expanded(batch))
  return Setting(config, dataset, method, state, batch)


def _bare(name: str) -> str:
  return name.partition('/')[0]


def _step(method: Any, kind: Any, state: Any, batch: Any) -> tuple[np.ndarray, int]:
  """(operations, bytes moved) of one kind of step; the bytes that it needs."""
  more = {} if kind is None else {'phase': kind}
  step = lambda state, batch, key: method.step(state, batch, key, **more)
  key = jax.random.key(0)
  traced = jax.jit(step).trace(state, batch, key)
  return operations.work(traced), operations.live(traced.jaxpr.jaxpr, donated=True)


def _blank(data: options.Data, given: Source, seen: Mapping[str, int]) -> sources.Dataset:
  """Black images of the right size and number, without a file."""
  _, config = prepare.parse([given.data, *given.options])
  config = dataclasses.replace(config, black_box='x') if given.black_box else config
  about = prepare.builder(given.data)(data_dir=Path(data.data_dir or '.'), config=config).about()
  info = sources.DataInfo(
    name=data.name,
    num_classes=len(about.class_names),
    class_names=about.class_names,
    palette=about.palette,
    readers=about.readers,
    ignore_label=about.ignore_label,
    black_box=about.black_box,
  )
  h, w, channels = given.shape
  record = dict(
    image=np.zeros((h, w, channels), np.uint8), labels=np.zeros((about.readers, h, w), np.uint8)
  )
  record |= {'black_box': np.zeros((h, w), np.uint8)} if about.black_box else {}
  counts = seen if 'train' in seen else {'train': sum(seen.values())}  # of LIDC v1 the sum is known
  return sources.Dataset(info, lambda text: _Blank(record, counts[sources.split_name(text)]))


@dataclasses.dataclass(frozen=True)
class _Blank(sources.Source):
  """A split of one image, over and over."""

  record: Mapping[str, Any]
  count: int

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> dict[str, Any]:
    return dict(self.record) | dict(id=str(index), group=str(index))

  @property
  def ids(self) -> list[str]:
    return [*map(str, range(self.count))]
