"""How a model's images are prepared, from preprocessor_config.json of transformers."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from car_jax.errors import UserError
from car_jax.importers.settings import Settings
from car_jax.importers.transformers.backbones import words
from car_jax.nn.composed import MEAN, STD

# Of labels, of how a call is made, and of batches.
PASSED = words("""
_valid_processor_keys crop_size data_format device disable_grouping do_convert_rgb do_pad
do_reduce_labels feature_extractor_type ignore_index image_processor_type image_seq_length
input_data_format num_labels pad_size processor_class reduce_labels return_tensors
transformers_version
""")
BILINEAR = 2  # as Pillow counts ways of resizing


class Images(NamedTuple):
  """mean, std: of RGB from 0 to 255. frame: how they are sized, as config.data has it: `fit` with
  `fit_multiple`, `resize`, or nothing."""

  mean: tuple[float, ...]
  std: tuple[float, ...]
  frame: dict[str, Any]


def images(config: Mapping[str, Any]) -> Images:
  """Raises UserError for what is not done here, such as a crop of the centre."""
  of = Settings(config, 'preprocessor_config')
  of.only('do_center_crop', False, None)
  of.passed(*PASSED)
  scale = 1.0
  if of('do_rescale', True):
    scale = _positive(of, 'rescale_factor', 1 / 255)
  else:
    of.passed('rescale_factor')
  mean, std = of('image_mean', None), of('image_std', None)
  if not of('do_normalize', True):
    mean, std = (0.0,) * 3, (1.0,) * 3
  given = [_three('image_mean', mean), _three('image_std', std)]
  given = [of_it and tuple(round(x / scale, 6) for x in of_it) for of_it in given]
  frame = _frame(of) if of('do_resize', True) else {}
  of.passed('size', 'max_size', 'resample', 'size_divisor', 'size_divisibility')
  of.finish()
  return Images(given[0] or MEAN, given[1] or STD, frame)


def _positive(of: Settings, key: str, default: float) -> float:
  value = of(key, default)
  if not isinstance(value, (int, float)) or not value > 0:
    raise UserError(f'its config has {of.where}.{key} = {value!r}\n  it is a positive number')
  return float(value)


def _three(key: str, value: Any) -> tuple[float, ...] | None:
  """Of RGB; None for a library's own, ImageNet's."""
  if value is None:
    return None
  value = (value,) * 3 if isinstance(value, (int, float)) else value
  whole = isinstance(value, tuple) and len(value) == 3
  if not whole or not all(isinstance(x, (int, float)) for x in value):
    raise UserError(f'its preprocessor_config has {key} = {value!r}\n  it is three numbers')
  if key == 'image_std' and 0 in value:
    raise UserError(f'its preprocessor_config has {key} = {value!r}\n  images are divided by it')
  return value


def _frame(of: Settings) -> dict[str, Any]:
  """Of `size`, which older files have as one number, or as a shortest edge with `max_size`."""
  of.only('resample', BILINEAR)
  size, most = of('size', None), of('max_size', None)
  if isinstance(size, int):
    size = {'shortest_edge': size, 'longest_edge': most} if most else {'height': size}
  elif isinstance(size, tuple) and len(size) == 2:
    size = {'height': size[0], 'width': size[1]}
  if not isinstance(size, Mapping):
    return {}
  multiple = _multiple(of)
  long, short = size.get('longest_edge') or most, size.get('shortest_edge')
  if isinstance(long, int) and isinstance(short, int):
    return dict(fit=(long, short), fit_multiple=multiple)
  height, width = size.get('height'), size.get('width') or size.get('height')
  if isinstance(height, int) and isinstance(width, int):
    return dict(resize=tuple(-(-side // multiple) * multiple for side in (height, width)))
  raise UserError(
    f'its config has {of.where}.size = {dict(size)!r}\n'
    '  what can be read: height and width, or shortest_edge and longest_edge'
  )


def _multiple(of: Settings) -> int:
  """Of which sides are whole multiples once an image is resized: stretched to it, not padded."""
  kind = str(of('image_processor_type', '') or of('feature_extractor_type', ''))
  default = 32 if kind.startswith(('Mask2Former', 'MaskFormer')) else 0
  value = of('size_divisor', of('size_divisibility', default)) or 1
  if type(value) is not int or value < 1:
    raise UserError(f'its config has {of.where}.size_divisor = {value!r}\n  it is a whole number')
  return value
