"""How a model of mmsegmentation is tested, from its whole config: sizes, windows, normalisation."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from car_jax.errors import UserError
from car_jax.importers.settings import Settings

# Steps that leave the image as it is: they read it, pack it, or flip it where flips are asked for.
PASSED = {'LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'ImageToTensor', 'Collect'}
PASSED |= {'DefaultFormatBundle', 'PackSegInputs', 'Normalize'}

# Where the steps may stand; the first that is there counts.
PIPELINES: tuple[tuple[str, ...], ...] = (
  ('test_pipeline',),
  ('data', 'test', 'pipeline'),
  ('test_dataloader', 'dataset', 'pipeline'),
)


class Testing(NamedTuple):
  """fit: the frame that images are resized into, or None where the config does not say.

  crop, stride: of windows, (height, width); 0 for the whole image at once. mean, std: of RGB from 0
  to 255, or None.
  """

  fit: tuple[int, int] | None
  crop: tuple[int, int]
  stride: tuple[int, int]
  mean: tuple[float, ...] | None
  std: tuple[float, ...] | None


def testing(config: Mapping[str, Any]) -> Testing:
  """Raises UserError for what prediction here does not do."""
  model = Settings(config, 'config').part('model')
  test = model('test_cfg', None) or config.get('test_cfg') or {}
  of = Settings(test if isinstance(test, Mapping) else {}, 'model.test_cfg')
  of.only('mode', 'whole', 'slide')
  windows = of('mode', 'whole') == 'slide'
  crop, stride = (_pair(of(key)) if windows else (0, 0) for key in ('crop_size', 'stride'))
  mean, std = _normalisation(config, model)
  return Testing(_fit(config), crop, stride, mean, std)


def _pair(x: Any) -> tuple[int, int]:
  return (x, x) if isinstance(x, int) else (int(x[0]), int(x[1]))


def _normalisation(config: Mapping[str, Any], model: Settings) -> tuple[Any, Any]:
  """Since mmsegmentation 1 in the model's data_preprocessor, before in img_norm_cfg."""
  given = model('data_preprocessor', None) or config.get('data_preprocessor')
  colours = 'bgr_to_rgb'
  if not given:
    steps = [*_steps(config), {'type': 'Normalize', **(config.get('img_norm_cfg') or {})}]
    given = next(s for s in steps if s.get('type') == 'Normalize')
    colours = 'to_rgb'
  of = Settings(given, 'img_norm_cfg' if colours == 'to_rgb' else 'model.data_preprocessor')
  mean, std = of('mean', None), of('std', None)
  if mean is None or std is None:
    if colours == 'to_rgb':  # a text that does not say
      return None, None
    mean, std = (0,) * 3, (1,) * 3
  of.only(colours, True, default=colours == 'to_rgb')
  of.only('test_cfg', None)  # how images are padded
  if 0 in std:
    raise UserError(f'its config has {of.where}.std = {std!r}\n  images are divided by it')
  return tuple(map(float, mean)), tuple(map(float, std))


def _fit(config: Mapping[str, Any]) -> tuple[int, int] | None:
  sizes = []
  for step in _steps(config):
    of = Settings(step, 'test_pipeline')
    if (kind := of('type', None)) == 'Resize':
      of.only('keep_ratio', True, default='scale' not in step)  # since version 1 it is False
      of.only('interpolation', 'bilinear')
      for key in ('scale_factor', 'ratio_range', 'min_size'):
        of.only(key, None)
    elif kind == 'MultiScaleFlipAug':
      of.only('flip', False)
      of.only('img_ratios', None, 1.0, (1.0,))
    elif kind not in PASSED:
      raise UserError(
        f'its config has {kind!r} in {of.where}, which is not done here\n'
        f'  what can be read: Resize, MultiScaleFlipAug, {", ".join(sorted(PASSED))}'
      )
    if kind in ('MultiScaleFlipAug', 'Resize'):
      sizes.append(of('img_scale', None) or of('scale', None))
  size = next(filter(None, sizes), None)
  if isinstance(size, tuple) and len(size) == 1:
    (size,) = size
  if isinstance(size, tuple) and not all(isinstance(side, int) for side in size):
    raise UserError(f'its config tests at the sizes {size}\n  what can be read: one size')
  return None if size is None else _pair(size)


def _steps(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
  """Of the pipeline that test images pass, those in MultiScaleFlipAug too."""
  stated = (_stated(config, *keys) for keys in PIPELINES)
  waiting = [*next(filter(None, stated), ())]
  while waiting:
    step = waiting.pop(0)
    if not isinstance(step, Mapping):
      raise UserError(f'its config has {step!r} in test_pipeline\n  a step is a dict')
    yield step
    waiting = [*_listed(Settings(step, 'test_pipeline'), 'transforms'), *waiting]


def _stated(config: Mapping[str, Any], *keys: str) -> tuple[Any, ...]:
  """The list at this place, () where there is none."""
  *parts, last = keys
  of = Settings(config, 'config')
  for key in parts:
    inside = of(key, None)
    of = Settings(inside if isinstance(inside, Mapping) else {}, f'{of.where}.{key}')
  return _listed(of, last)


def _listed(of: Settings, key: str) -> tuple[Any, ...]:
  steps = of(key, None) or ()
  if not isinstance(steps, tuple):
    raise UserError(f'its config has {of.where}.{key} = {steps!r}\n  it is a list of steps')
  return steps


def check_frame(of: Testing) -> None:
  """Raises UserError for windows that leave gaps."""
  if any(s > c or (c and s < 1) for c, s in zip(of.crop, of.stride, strict=True)):
    raise UserError(f'its config has windows of {of.crop}, {of.stride} apart, which leave gaps')
