"""Data sets that `car-jax prepare` has put into folders, read without TensorFlow.

The files that describe a folder are read before TFDS reads them, since it believes what they say:
it imports whatever module a features.json names, and takes a description whose bytes changed.
"""

import dataclasses
import difflib
import functools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from car_jax import files, paths
from car_jax.data.options import Data
from car_jax.data.sources import DataInfo, Dataset, Source, check_range, split_name
from car_jax.errors import UserError, nearest, reading

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
  'generated_scenes',
  'generated_objects',
  'folder',
)  # what car-jax prepare can prepare
SHIPPED = ('lidc_masks', 'street_scenes')  # prepared without a source
NAMED = ('folder', 'generated_scenes', 'generated_objects')  # whose variants users name

MEND = 'prepare it again with --overwrite'
KEYS = ('class_names', 'palette', 'readers', 'ignore_label', 'licence', 'citation')
FEATURES = 'tensorflow_datasets.core.features.'
TEXT = {'pythonClassName': f'{FEATURES}text_feature.Text', 'text': {}}


def tensor(axes: int) -> dict[str, Any]:
  """How TFDS writes an array of bytes of any size."""
  size = {'dimensions': ['-1'] * axes}
  about = {'dtype': 'uint8', 'encoding': 'bytes', 'shape': size}
  return {'pythonClassName': f'{FEATURES}tensor_feature.Tensor', 'tensor': about}


RECORD = {'id': TEXT, 'group': TEXT, 'image': tensor(3), 'labels': tensor(3)}


def check_features(folder: pathlib.Path) -> None:
  """Raises UserError unless the folder's features.json is what we write, word by word."""
  path = folder / 'features.json'
  features = files.read_json(path, mend=MEND)
  with reading(path, 'the features of a prepared data set', MEND):
    if features['pythonClassName'] != f'{FEATURES}features_dict.FeaturesDict':
      raise ValueError(f'a {features["pythonClassName"]}')
    record = features['featuresDict']['features']
    wanted = RECORD | ({'black_box': tensor(2)} if 'black_box' in record else {})
    if other := sorted(k for k in {*record, *wanted} if record.get(k) != wanted.get(k)):
      raise ValueError(f'{other[0]!r} is another feature')
    keys = [*sorted(features), *features['featuresDict']]
    if keys != ['featuresDict', 'pythonClassName', 'features']:
      raise ValueError('it has other keys')


def checksum(meta: Mapping[str, Any]) -> int:
  """CRC32 of a metadata.json but for its `checksum`."""
  return files.checksum({k: v for k, v in meta.items() if k != 'checksum'})


def metadata(folder: pathlib.Path) -> dict[str, Any]:
  """A prepared folder's metadata.json. Raises UserError: damage, values that no data set has.

  One of an earlier version has no checksum.
  """
  path = folder / 'metadata.json'
  meta = files.read_json(path, keys=KEYS, mend=MEND)
  with reading(path, 'the description of a prepared data set', MEND):
    if meta.get('checksum') not in (None, checksum(meta)):
      raise ValueError('its checksum is another one')
    names, palette = meta['class_names'], meta['palette']
    if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
      raise ValueError(f'class_names are {names!r}')
    if len(palette) != len(names) or not all(_is_byte(x) for colour in palette for x in colour):
      raise ValueError('palette has no colour of three bytes for each class')
    if type(meta['readers']) is not int or meta['readers'] < 1:
      raise ValueError(f'readers is {meta["readers"]!r}')
    for key in ('ignore_label', 'unknown_label'):
      if not (meta.get(key) is None or _is_byte(meta[key])):
        raise ValueError(f'{key} is {meta[key]!r}')
    if meta.get('unknown_label') is not None and meta['ignore_label'] is None:
      raise ValueError('unknown_label needs an ignore_label')
  return meta


def _is_byte(x: Any) -> bool:
  return type(x) is int and 0 <= x < 256


def check_shards(splits: Mapping[str, Any], split: str) -> None:
  """Raises ValueError unless each file of a split has as many records as dataset_info.json says."""
  from array_record.python import array_record_module

  about = splits[split]
  for path, count in zip(about.filepaths, about.shard_lengths, strict=True):
    reader = array_record_module.ArrayRecordReader(str(path))
    records = reader.num_records()
    reader.close()
    if records != count:
      raise ValueError(f'{pathlib.Path(path).name} has {records:,} records, not {count:,}')


def default_data_dir() -> pathlib.Path:
  return paths.of(os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')).expanduser()


@dataclasses.dataclass(frozen=True)
class Prepared(Data):
  """A data set of any name that is no made-up one."""

  def records(self) -> Dataset:
    """Raises UserError for a data set that is not prepared there, with the command."""
    return _opened(self.name, paths.of(self.data_dir or default_data_dir()).expanduser())


def prepared(data_dir: pathlib.Path) -> list[str]:
  """Names of what is prepared there, such as 'lidc_masks/size64' or 'lidc_crops'."""
  names = set()
  deeper = ('*/*/*', '*/*', '*/*/*/*') if paths.is_remote(data_dir) else ('*/**',)
  for path in (p for d in deeper for p in data_dir.glob(f'{d}/dataset_info.json')):
    parts = path.relative_to(data_dir).parts[:-1]
    whole = not any('incomplete' in part for part in parts)  # else a killed run left it
    if whole and re.fullmatch(r'\d+\.\d+\.\d+', parts[-1]):
      names.add('/'.join(parts[:-1]).removesuffix('/default'))
  return sorted(names)


def _opened(name: str, data_dir: pathlib.Path) -> Dataset:
  folder = version_folder(data_dir / name) or version_folder(data_dir / name / 'default')
  if folder is None:
    known = (*prepared(data_dir), *(() if name.partition('/')[0] in KNOWN else KNOWN))
    hint = f'\n{nearest(name, known)}' if known else ''
    fix = _command(name, data_dir)
    raise UserError(f'data set {name!r} is not prepared in {data_dir}{hint}{fix}')
  folder = paths.fetched(folder)  # ArrayRecord's reader opens files of this machine alone
  check_features(folder)
  meta = metadata(folder)
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
      by_object=bool(meta.get('by_object')),
      groups=str(meta.get('groups', 'groups')),
      black_box=meta.get('black_box', False),
      range=str(meta.get('range', '')),
      licence=meta['licence'],
      citation=meta['citation'],
    )
  except Exception as e:
    raise UserError(f'{folder} cannot be read ({type(e).__name__}: {e})\n  {MEND}') from None
  return Dataset(info, lambda split: _Records(builder, split, folder))


def _command(name: str, data_dir: pathlib.Path) -> str:
  """The line that tells how to prepare `name`, or the known data set it resembles; or nothing."""
  base, _, variant = name.partition('/')
  close = difflib.get_close_matches(base, KNOWN, n=1)
  if not close:
    return ''
  words = ['car-jax prepare', close[0]]
  words += [] if close[0] in SHIPPED else ['--source FOLDER']
  if close[0] in NAMED:
    words += [f'--variant {variant}'] if variant else []
  else:  # the options that the variant's name is made of, such as size64-noise2
    given = re.findall(r'([a-z]+)_?(-?[\d.,+]+|(?<=_)[a-z]+)', variant)
    words += [f'--{k} {v.replace("+", ",")}' for k, v in given]
  words += [] if data_dir == default_data_dir() else [f'--data-dir {data_dir}']
  return f'\n  to prepare it: {" ".join(words)}'


def version_folder(folder: pathlib.Path) -> pathlib.Path | None:
  folders = (p.parent for p in folder.glob('[0-9]*/dataset_info.json'))
  versions = [p for p in folders if re.fullmatch(r'\d+\.\d+\.\d+', p.name)]
  return max(versions, key=lambda p: tuple(map(int, p.name.split('.'))), default=None)


class _Records(Source):
  """One split of a prepared folder. Damage is reported with the folder's name."""

  def __init__(self, builder: Any, split: str, folder: pathlib.Path):
    self._folder, self._builder, self._split = folder, builder, split
    name = split_name(split)
    if name not in builder.info.splits:
      raise UserError(f'no split {name!r} in {folder}\n{nearest(name, builder.info.splits)}')
    check_range(split, builder.info.splits[name].num_examples)
    try:
      check_shards(builder.info.splits, name)
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

  @functools.cached_property
  def ids(self) -> list[str]:
    return [record['id'].decode() for record in self._undecoded('id')]

  @property
  def num_bytes(self) -> int:
    return int(self._builder.info.splits[split_name(self._split)].num_bytes)

  @functools.cached_property
  def sizes(self) -> list[tuple[int, int]]:
    shapes = [record['image']['shape'] for record in self._undecoded()]
    return [(int(h), int(w)) for h, w, *_ in shapes]

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
    return UserError(f'{self._folder} is damaged ({type(e).__name__}: {reason})\n  {MEND}')
