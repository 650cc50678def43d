"""Config keys that had another name in an earlier version, and the configs of runs from then."""

from typing import Any

KEYS = {
  'data.flip': 'mirror',
  'data.flip_rows': 'mirror_rows',
  'data.flips': 'class_flips',
  'data.flip_black_box': 'class_flip_black_box',
  'data.source.flip': 'mirror',
  'data.target.flip': 'mirror',
  'data.target.flip_views': 'mirror_views',
  'method.flip': 'mirror',
}
TRANSFORMS = {'flip': 'mirror', 'flip_rows': 'mirror_rows'}


def hint(key: str) -> str:
  """What a message says of a dotted key that is now called otherwise; '' for others."""
  if key not in KEYS:
    return ''
  return f'  it is now called {key.rpartition(".")[0]}.{KEYS[key]}'


def modern(config: dict[str, Any], where: str = '') -> dict[str, Any]:
  """A run's config as it was kept with it, under the keys of today."""
  out = {}
  for key, value in config.items():
    place = f'{where}{key}'
    if place == 'data.transforms':
      value = [_transform(t) for t in value]
    elif key == 'dtype' and value == 'float16':  # once one of nets
      value = 'float32'
    elif place == 'data.augment' and value == 'host':  # views were once made elsewhere on demand
      continue
    out[KEYS.get(place, key)] = modern(value, f'{place}.') if isinstance(value, dict) else value
  return out


def _transform(entry: Any) -> Any:
  if isinstance(entry, dict):
    return entry | {'name': TRANSFORMS.get(entry['name'], entry['name'])}
  return TRANSFORMS.get(entry, entry)
