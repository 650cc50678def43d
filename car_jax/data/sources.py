"""Data sets as random-access sources of records, read from prepared folders without TensorFlow.

A record is a dict: image uint8 [H, W, 1 or 3], labels uint8 [M, H, W] (one map per reader), id and
group (the patient, the scene: what must not be shared between splits), both str; and black_box
uint8 [H, W], another model's prediction, where the data set has one.
"""

import dataclasses
import difflib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from car_jax.data import prepared as folders
from car_jax.errors import UserError, nearest

KNOWN = (
  'lidc_masks',
  'lidc_crops',
  'lidc_v1',
  'lidc_dicom',
  'cityscapes',
  'acdc',
  'idd',
  'gta5',
  'synthia',
  'street_scenes',
  'folder',
)  # what datasets.prepare can prepare
KEYS = ('name', 'data_dir', 'train', 'batch', 'eval_batch', 'size', 'pad', 'crop', 'flip', 'rot90')
KEYS += ('flip_rows', 'rotate', 'threads', 'eval_size', 'scales', 'flips', 'flip_black_box')
KEYS += ('corruption', 'fit')
SHIPPED = ('lidc_masks', 'street_scenes')  # prepared without a source


@dataclasses.dataclass(frozen=True)
class DataInfo:
  """What a method and a report need to know of a data set. `readers` is the largest M."""

  name: str
  num_classes: int
  class_names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  readers: int
  ignore_label: int | None = None
  unknown_label: int | None = None  # objects of no known class; the pipeline makes it `unknown`
  flips: tuple[Any, ...] = ()  # metrics.flips.Flip, where the readers are modes of random flips
  black_box: bool = False  # records hold another model's prediction
  licence: str = ''
  citation: str = ''


def from_json(saved: Mapping[str, Any]) -> DataInfo:
  """What dataclasses.asdict made of a DataInfo, through JSON; what is not there is empty."""
  from car_jax.metrics.flips import Flip

  empty = dict(name='', num_classes=0, class_names=(), palette=(), readers=0)
  plain = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
  flips = tuple(Flip(*f) for f in plain.pop('flips', ()))
  return DataInfo(**empty | plain, flips=flips)


class Source(Protocol):
  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
  """`split('validation[:50%]')` follows TFDS' way of slicing; records have a fixed order."""

  info: DataInfo
  split: Any


def default_data_dir() -> pathlib.Path:
  return pathlib.Path(os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')).expanduser()


def open_dataset(config: Mapping[str, Any]) -> Dataset:
  """config.data -> the data set it names. Raises UserError: unknown key or name, not prepared."""
  name = config['name']
  fake_keys = ('count', 'num_classes', 'readers', 'black_box')
  known = KEYS + (fake_keys if name == 'fake' else ())
  if config.get('source'):
    from car_jax.data import adaptation

    return adaptation.open_dataset(config)
  if name == 'toy_regression':
    from car_jax.data import toy_regression

    return toy_regression.open_dataset(config)
  if unknown := sorted(set(config) - set(known)):
    raise UserError(f'unknown config key data.{unknown[0]}\n{nearest(unknown[0], known)}')
  if name == 'fake':
    from car_jax.data import fake

    given = {k: config[k] for k in (*fake_keys, 'size') if k in config}
    return _flipped(fake.open_dataset(**given), config)
  found = _prepared(name, pathlib.Path(config.get('data_dir') or default_data_dir()).expanduser())
  return _flipped(found, config)


def _flipped(dataset: Dataset, config: Mapping[str, Any]) -> Dataset:
  if not config.get('flips'):
    return dataset
  from car_jax.data import class_flips

  return class_flips.flipped(dataset, config['flips'])


def prepared(data_dir: pathlib.Path) -> list[str]:
  """Names of what is prepared there, such as 'lidc_masks/size64' or 'lidc_crops'."""
  found = set()
  for path in data_dir.glob('*/**/dataset_info.json'):
    parts = path.relative_to(data_dir).parts[:-1]
    whole = not any('incomplete' in part for part in parts)  # else a killed run left it
    if whole and re.fullmatch(r'\d+\.\d+\.\d+', parts[-1]):
      found.add('/'.join(parts[:-1]).removesuffix('/default'))
  return sorted(found)


def _prepared(name: str, data_dir: pathlib.Path) -> Dataset:
  folder = _version_folder(data_dir / name) or _version_folder(data_dir / name / 'default')
  if folder is None:
    known = (*prepared(data_dir), *(() if name.partition('/')[0] in KNOWN else KNOWN))
    fix = _command(name, data_dir)
    raise UserError(f'data set {name!r} is not prepared in {data_dir}\n{nearest(name, known)}{fix}')
  folders.check_features(folder)
  meta = folders.metadata(folder)
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder_from_directory(folder)
    info = DataInfo(
      name=name,
      num_classes=len(meta['class_names']),
      class_names=tuple(meta['class_names']),
      palette=tuple(tuple(c) for c in meta['palette']),
      readers=meta['readers'],
      ignore_label=meta['ignore_label'],
      unknown_label=meta.get('unknown_label'),
      black_box=meta.get('black_box', False),
      licence=meta['licence'],
      citation=meta['citation'],
    )
  except Exception as e:
    raise UserError(
      f'{folder} cannot be read ({type(e).__name__}: {e})\n  prepare it again with --overwrite'
    ) from None
  return Dataset(info, lambda split: _Records(builder, split, folder))


def _command(name: str, data_dir: pathlib.Path) -> str:
  """The line that tells how to prepare `name`, or the known data set it resembles; or nothing."""
  base, _, variant = name.partition('/')
  close = difflib.get_close_matches(base, KNOWN, n=1)
  if not close:
    return ''
  words = ['python -m datasets.prepare', close[0]]
  words += [] if close[0] in SHIPPED else ['--source FOLDER']
  if close[0] == 'folder':
    words += [f'--variant {variant}'] if variant else []
  else:  # the options that the variant's name is made of, such as size64-noise2
    words += [f'--{k} {v}' for k, v in re.findall(r'([a-z]+)_?(-?[\d.,]+|(?<=_)[a-z]+)', variant)]
  words += [] if data_dir == default_data_dir() else [f'--data-dir {data_dir}']
  return f'\n  to prepare it: {" ".join(words)}'


def _version_folder(folder: pathlib.Path) -> pathlib.Path | None:
  found = (p.parent for p in folder.glob('[0-9]*/dataset_info.json'))
  versions = [p for p in found if re.fullmatch(r'\d+\.\d+\.\d+', p.name)]
  return max(versions, key=lambda p: tuple(map(int, p.name.split('.'))), default=None)


class _Records:
  """One split of a prepared folder. Damage is reported with the folder's name."""

  def __init__(self, builder: Any, split: str, folder: pathlib.Path):
    self._folder, self._builder, self._split = folder, builder, split
    self._sizes: list[tuple[int, int]] | None = None
    name = split_name(split)
    if name not in builder.info.splits:
      raise UserError(f'no split {name!r} in {folder}\n{nearest(name, builder.info.splits)}')
    check_range(split, builder.info.splits[name].num_examples)
    try:
      folders.check_shards(builder.info.splits, name)
      self._source = builder.as_data_source(split)
    except Exception as e:
      raise self._damaged(e) from None

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    try:
      record = self._source[index]
    except Exception as e:
      raise self._damaged(e) from None
    return record | {k: record[k].decode() for k in ('id', 'group')}

  def ids(self) -> list[str]:
    return [record['id'].decode() for record in self._undecoded('id')]

  def num_bytes(self) -> int:
    return int(self._builder.info.splits[split_name(self._split)].num_bytes)

  def image_sizes(self) -> list[tuple[int, int]]:
    if self._sizes is None:
      shapes = [record['image']['shape'] for record in self._undecoded()]
      self._sizes = [(int(h), int(w)) for h, w, *_ in shapes]
    return self._sizes

  def _undecoded(self, *but: str) -> Iterator[dict[str, Any]]:
    import tensorflow_datasets as tfds

    skipped = {k: tfds.decode.SkipDecoding() for k in {*self._builder.info.features} - {*but}}
    source = self._builder.as_data_source(self._split, decoders=skipped)
    for i in range(len(source)):
      try:
        yield source[i]
      except Exception as e:
        raise self._damaged(e) from None

  def _damaged(self, e: Exception) -> UserError:
    reason = (str(e).splitlines() or [''])[0][:120]
    return UserError(
      f'{self._folder} is damaged ({type(e).__name__}: {reason})\n'
      '  prepare it again with --overwrite'
    )


def ids(records: Source) -> list[str]:
  """Of all records, in their order; prepared ones are not decoded for it."""
  read = getattr(records, 'ids', lambda: [records[i]['id'] for i in range(len(records))])
  return read()


def sizes(records: Source) -> list[tuple[int, int]]:
  """(H, W) of all records' images, in their order; prepared ones are not decoded for it."""
  if hasattr(records, 'image_sizes'):
    return records.image_sizes()
  shapes = (records[i]['image'].shape for i in range(len(records)))
  return [(int(shape[0]), int(shape[1])) for shape in shapes]


@dataclasses.dataclass(frozen=True)
class Picked:
  """Some records of a source, in the given order."""

  source: Any
  indices: Sequence[int]

  def __len__(self) -> int:
    return len(self.indices)

  def image_sizes(self) -> list[tuple[int, int]]:
    found = sizes(self.source)
    return [found[int(i)] for i in self.indices]

  def __getitem__(self, k: int) -> dict[str, Any]:
    return self.source[int(self.indices[k])]


def num_bytes(records: Source) -> int:
  """How large the whole split is on the disk; 0 for what is made in memory."""
  return records.num_bytes() if hasattr(records, 'num_bytes') else 0


def check_range(split: str, count: int) -> None:
  """Raises UserError where 'train[:100]' asks for more than the `count` images of the split."""
  if over := [n for n in re.findall(r'(?<=[\[:])-?(\d+)(?=[:\]])', split) if int(n) > count]:
    raise UserError(
      f'the split {split!r} asks for {over[0]} images; {split_name(split)} has {count:,}\n'
      f'  use {split_name(split)}, or a share such as {split_name(split)}[:50%]'
    )


def split_name(split: str) -> str:
  """'train[:50%]' -> 'train'. Raises UserError for a text of another form."""
  if not re.fullmatch(r'\w+(\[(-?\d+%?)?:(-?\d+%?)?\])?', split):
    raise UserError(f'cannot read the split {split!r}; expected NAME, NAME[10:20] or NAME[:50%]')
  return split.partition('[')[0]


def sliced(records: Sequence[Any], split: str) -> Sequence[Any]:
  """TFDS' '[a:b]' on a sequence, in numbers or per cent, for data that is made in memory."""
  check_range(split, len(records))
  begin, _, end = split.removeprefix(split_name(split)).strip('[]').partition(':')

  def bound(text: str) -> int | None:
    if not text:
      return None
    return round(len(records) * int(text[:-1]) / 100) if text.endswith('%') else int(text)

  return records[bound(begin) : bound(end)]
