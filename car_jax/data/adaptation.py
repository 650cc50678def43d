"""Two domains in one stream of batches: labelled source images, and views of target images.

config.data names the target as any data set is named, since that is where the net is scored;
`source` names the labelled one, and the training split is called 'adaptation':

  data = dict(name='cityscapes', train='adaptation', batch=8, ...,
    source=dict(name='gta5', size=(512, 1024), ...),
    target=dict(groups=2, views=4, size=(512, 1024), ...))

Batch k is a pure function of (seed, k, host). Letters: B source images, G target images a batch, T
views of each, H x W pixels.
"""

import dataclasses
import functools
import inspect
import itertools
import pathlib
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
import numpy as np

from car_jax.data import importance, pipeline, sources, views
from car_jax.data.options import Data, Target
from car_jax.data.sources import DataInfo, Dataset, Source
from car_jax.errors import UserError

TRAIN = 'adaptation'
OUTSIDE = 255  # the label of what is ignored, where the target has none: no class has this number


def two_domains(data: Data, target: Dataset, source: Callable[[], Dataset]) -> Dataset:
  """The target's splits, and 'adaptation'; source() opens the other. Raises UserError."""

  def split(text: str) -> Any:
    if text != TRAIN:  # to score the target the source need not be there
      return target.split(text)
    opened = source()
    check_classes(opened.info, target.info)
    return joined(data, opened, target)

  return Dataset(target.info, split)


def check_classes(source: DataInfo, target: DataInfo) -> None:
  """Raises UserError unless both have the same classes in the same order."""
  pairs = itertools.zip_longest(source.class_names, target.class_names, fillvalue='nothing')
  for k, (one, other) in enumerate(pairs):
    if one != other:
      raise UserError(
        f'class {k} is {one} in {source.name}, {other} in {target.name}\n'
        '  prepare both with the same classes'
      )


def joined(data: Data, source: Dataset, target: Dataset) -> 'TwoDomains':
  """The stream of config.data with its `source` and `target`. Raises UserError."""
  source_options, target_options = data.source, data.target or Target()
  assert source_options is not None
  records = source.split(source_options.split)
  pipeline.check_enough(f'the source {source.info.name}', len(records), data.batch)
  most = target.info.num_classes
  if any(k >= most for k in target_options.uniform_classes):
    raise UserError(
      f'config.data.target.uniform_classes is {target_options.uniform_classes!r}; '
      f'it is classes from 0 to {most - 1}'
    )
  names = ('size', 'scale', 'mirror', 'jitter', 'blur', 'renormalise')
  return TwoDomains(
    Domain(records, source.info, {k: getattr(source_options, k) for k in names}),
    Domain(target.split(target_options.split), target.info, view_options(target_options)),
    data.batch,
    data.threads,
    data.workers,
    target_options,
  )


def view_options(target: Target) -> dict[str, Any]:
  """The keywords of views.group, or without views of views.source. Raises UserError."""
  given = target.look()
  if not target.groups:
    if given:
      raise UserError(
        f'config.data.target.{min(given)} is not read: groups is 0\n'
        '  use --config.data.target.groups=1 or more, or leave it out'
      )
    return {}
  made = views.group if target.views else views.source
  known = {k for k in inspect.signature(made).parameters if k in {f.name for f in FIELDS}}
  if unread := sorted(set(given) - known):
    raise UserError(
      f'config.data.target.{unread[0]} is not read with views={target.views}\n'
      f'  what is: {", ".join(sorted(known))}'
    )
  if 'size' not in given:
    raise UserError('config.data.target.size is missing, the height and width of what is cut')
  if target.views == 0 and not isinstance(given.get('blur', False), bool):
    raise UserError(f'config.data.target.blur is {given["blur"]!r}; of windows it is True or False')
  if target.views and isinstance(given.get('blur'), bool):
    raise UserError("config.data.target.blur: of views it is two radii, such as '(0.1, 2.0)'")
  if target.views:
    return given | {'views': target.views}
  return {'renormalise': False} | given  # single images, as the source's but for its colours


FIELDS = dataclasses.fields(Target)
SINGLE = {'': 'image', '_label': 'label', '_frame': 'frame'}  # the target's keys after its name


@dataclasses.dataclass(frozen=True)
class Domain:
  """A data set's records, and how they become images: keywords of views.source or views.group."""

  records: Source
  info: DataInfo
  options: Mapping[str, Any]

  def example(
    self, index: int, rng: np.random.Generator, ignored: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [H, W, 3] and one reader's label int32 [H, W], `ignored` where it says nothing."""
    record = self.records[index]
    image, labels = np.asarray(record['image']), np.asarray(record['labels'], np.int32)
    label = labels[rng.integers(len(labels))]
    for none in (self.info.ignore_label, self.info.unknown_label):
      label = label if none is None else np.where(label == none, ignored, label)
    return np.repeat(image, 3 // image.shape[-1], -1), label


@dataclasses.dataclass(frozen=True)
class TwoDomains(sources.Stream):
  """A training split. An epoch is one of the source, cut to whole batches.

  The target has epochs of its own and loses no image. With `counts`, a file of the classes that a
  model found on it (data/importance.py), images are drawn by class instead. Images of either are
  float32 in [-1, 1], beyond it where colours are renormalised, and ImageNet's mean where padded.
  """

  source: Domain
  target: Domain
  batch: int
  threads: int
  workers: int
  target_options: Target

  @property
  def groups(self) -> int:
    return self.target_options.groups

  @property
  def views(self) -> int:
    return self.target_options.views

  def __len__(self) -> int:
    return len(self.source.records)

  def train_batches(
    self, *, seed: int, start_step: int = 0, host: int = 0, hosts: int = 1
  ) -> Generator[dict[str, np.ndarray], None, None]:
    """This host's rows of batches start_step, start_step + 1, ...

    image [B, H, W, 3] and label [B, H, W]; with views=0 target [G, H, W, 3] and target_label
    [G, H, W]; else those and student, affine, affine_inv, views [G T, ...] as in methods/sac.py.
    Images and labels are bytes, with frames, as in data/compact.py.
    """
    import grain

    check_shares(self.batch, self.groups, max(self.views, 1), hosts)
    steps = Steps(self, seed, start_step, host, hosts)
    yield from pipeline.ahead_of_use(grain.MapDataset.source(steps), self.threads, self.workers)

  @functools.cached_property
  def class_counts(self) -> importance.Counts | None:
    if not self.target_options.counts:
      return None
    counts = importance.load(pathlib.Path(self.target_options.counts), self.target.info.num_classes)
    return counts.of(self.target.records.ids)


def check_shares(batch: int, groups: int, views: int, hosts: int) -> None:
  """Raises UserError unless both halves of a batch divide over the processes and devices, and all
  views of an image are of one process."""
  pipeline.check_shared(batch, hosts)
  parts = max(hosts, jax.device_count())
  if groups * views % parts or groups % hosts:
    raise UserError(
      f'config.data.target: {groups} images in {views} views cannot be split over {parts} devices '
      f'of {hosts} process(es)\n'
      f'  groups must be a multiple of {hosts}, and groups times views of {parts}'
    )


class Steps:
  """Step k of this host as a finished batch: grain's random-access source."""

  def __init__(self, data: TwoDomains, seed: int, skip: int, host: int, hosts: int):
    self.data, self.seed, self.skip = data, seed, skip
    self.rows = _part(data.batch, host, hosts)
    self.groups = _part(data.groups, host, hosts)  # an image's views are of one process
    self.epoch_steps = pipeline.steps_per_epoch(len(data), data.batch)
    ignored = data.target.info.ignore_label  # what a method hears of: the target's, for both
    self.ignored, self.draws = OUTSIDE if ignored is None else ignored, None
    if (counts := data.class_counts) is not None:
      cumulative = importance.distribution(
        counts.shares,
        prior=data.target_options.uniform_share,
        ignored=data.target_options.uniform_classes,
      )
      self.draws = importance.Draws(cumulative, seed, len(data))

  def _record(self, domain: int, epoch: int, count: int, place: int) -> int:
    """Which of a domain's records is at a place of an epoch."""
    return int(pipeline.permutation(count, self.seed, epoch, domain, 5)[place])

  def __len__(self) -> int:
    return 2**40

  def __getitem__(self, k: int) -> dict[str, np.ndarray]:
    step = k + self.skip
    batch = _stacked([self.source(step, row) for row in self.rows])
    if not self.groups:
      return batch
    made = [self.group(step, g) for g in self.groups]
    join = np.concatenate if self.data.views else np.stack
    return batch | {key: join([m[key] for m in made]) for key in made[0]}

  def source_example(
    self, step: int, row: int
  ) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    epoch, within = divmod(step, self.epoch_steps)
    domain = self.data.source
    index = self._record(1, epoch, len(domain.records), within * self.data.batch + row)
    rng = np.random.default_rng([self.seed, step * self.data.batch + row, 1])
    return *domain.example(index, rng, self.ignored), rng

  def target_example(self, step: int, g: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    place = step * self.data.groups + g
    rng = np.random.default_rng([self.seed, place, 2])
    return *self.data.target.example(self.chosen(place), rng, self.ignored), rng

  def source(self, step: int, row: int) -> dict[str, np.ndarray]:
    options = self.data.source.options
    return views.source(*self.source_example(step, row), ignore_label=self.ignored, **options)

  def group(self, step: int, g: int) -> dict[str, np.ndarray]:
    """The views of target image g of a step, or the one image."""
    example, options = self.target_example(step, g), self.data.target.options
    if not self.data.views:
      one = views.source(*example, ignore_label=self.ignored, **options)
      return {f'target{k}': one[key] for k, key in SINGLE.items()}
    made = views.group(*example, **options)
    return made | {'views': np.full(self.data.views, self.data.views, np.int32)}

  def chosen(self, place: int) -> int:
    """The record of the target that is image `place` of the run."""
    count = len(self.data.target.records)
    if self.draws is not None:
      return self.draws[place]
    epoch, within = divmod(place, count)
    return self._record(2, epoch, count, within)


def _part(count: int, host: int, hosts: int) -> range:
  local = count // hosts
  return range(host * local, (host + 1) * local)


def _stacked(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  return {key: np.stack([row[key] for row in rows]) for key in rows[0]}
