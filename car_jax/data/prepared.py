"""The files that describe a prepared folder, read before TFDS does: it believes what they say.

TFDS imports whatever module a features.json names, and takes a description whose bytes changed.
"""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

from car_jax import files
from car_jax.errors import reading

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
  found = files.read_json(path, mend=MEND)
  with reading(path, 'the features of a prepared data set', MEND):
    if found['pythonClassName'] != f'{FEATURES}features_dict.FeaturesDict':
      raise ValueError(f'a {found["pythonClassName"]}')
    record = found['featuresDict']['features']
    wanted = RECORD | ({'black_box': tensor(2)} if 'black_box' in record else {})
    if other := sorted(k for k in {*record, *wanted} if record.get(k) != wanted.get(k)):
      raise ValueError(f'{other[0]!r} is another feature')
    if {*found} != {'featuresDict', 'pythonClassName'} or {*found['featuresDict']} != {'features'}:
      raise ValueError('it has other keys')


def checksum(meta: Mapping[str, Any]) -> int:
  """CRC32 of a metadata.json but for its `checksum`, however the JSON is laid out."""
  rest = {k: v for k, v in meta.items() if k != 'checksum'}
  return zlib.crc32(json.dumps(rest, sort_keys=True, separators=(',', ':')).encode())


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
    found = reader.num_records()
    reader.close()
    if found != count:
      raise ValueError(f'{pathlib.Path(path).name} has {found:,} records, not {count:,}')
