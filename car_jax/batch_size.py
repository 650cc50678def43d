"""A run's batch: brought to the devices that there are, and what follows where it is another one
than the config is meant for."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from car_jax import lookup, options
from car_jax.errors import UserError

STEPS = ('steps', 'log_every', 'eval_every', 'save_every')  # of a config, counted in batches
RATES, RATE_STEPS = ('lr', 'end'), ('decay_steps', 'warmup_steps')  # of an optimizer


def effective(config: ConfigDict, devices: int, hosts: int = 1) -> tuple[ConfigDict, list[str]]:
  """A completed config -> the one that is trained, and lines on what is another in it.

  Its batch is split over so many devices of so many processes, and `base_batch` was acted on. A
  config that this returned stays as it is. Raises UserError.
  """
  config = ConfigDict(config.to_dict())
  return config, [*_divided(config, devices, hosts), *_scaled(config)]


def ratio(given: ConfigDict, made: ConfigDict) -> float:
  """Steps of a config to those of what `effective` made of it."""
  return made.data.batch / given.base_batch if given.base_batch else 1.0


def _divided(config: ConfigDict, devices: int, hosts: int) -> Iterator[str]:
  """Batches to the nearest size that every device has an equal share of.

  A target image's views may lie on several devices of one process, never of two.
  """
  data = config.data
  if (batch := _nearest('batch', data.batch, devices, devices)) != data.batch:
    follow = f'; --config.base_batch={data.batch} lets rates and steps follow'
    yield (
      f'batch {data.batch} -> {batch}, which {devices} devices share'
      f'{"" if config.base_batch else follow}'
    )
    data.batch = batch
  target = data.get('target')
  if target and target.groups:
    views = target.views or 1
    unit = math.lcm(hosts, devices // math.gcd(devices, views))
    least = -(-devices // views)
    groups = _nearest('target.groups', target.groups, unit, least)
    if groups != target.groups:
      yield f'target.groups {target.groups} -> {groups}, which {devices} devices share'
      target.groups = groups


def _nearest(key: str, size: int, unit: int, least: int) -> int:
  """The multiple of `unit` next to `size`. Raises UserError where a device would have no image."""
  if size < least:
    also = f', with --config.base_batch={size} for rates and steps that follow'
    raise UserError(
      f'config.data.{key} is {size}: fewer images than there are devices for\n'
      f'  use --config.data.{key}={-(-least // unit) * unit}{also if key == "batch" else ""}\n'
      '  or fewer devices (docs/devices.md)'
    )
  return max(unit, math.floor(size / unit + 0.5) * unit)


def _scaled(config: ConfigDict) -> Iterator[str]:
  """Rates and numbers of steps for config.data.batch, of those for config.base_batch."""
  base, batch, larger = config.base_batch, config.data.batch, ratio(config, config)
  if not base:
    if config.lr_scaling != 'linear':
      raise UserError(
        f'config.lr_scaling is {config.lr_scaling!r}, and there is no config.base_batch\n'
        '  use --config.base_batch=N, the batch that the rates are meant for'
      )
    return
  fewer = lambda n: max(1, round(n / larger)) if n else n
  before, factors, method = config.steps, [], config.method
  config.update({key: fewer(config[key]) for key in STEPS})
  cls: Any = lookup.find('method', method.name)
  method.update({key: fewer(method[key]) for key in cls.step_options})
  for entry in optimizers(method, cls):
    images = larger * entry.get('accumulate', 1)  # of an update, to those of base_batch
    factor = images if config.lr_scaling == 'linear' else math.sqrt(images)
    factors.append(f'{factor:.4g}')
    entry.update({key: entry[key] * factor for key in RATES if key in entry})
    entry.update({key: fewer(entry[key]) for key in RATE_STEPS if key in entry})
  yield (
    f'batch {batch}, base_batch {base}: rates x {" and ".join(dict.fromkeys(factors))} '
    f'({config.lr_scaling}), '
    f'steps {before:,} -> {config.steps:,}'
  )
  config.base_batch, config.lr_scaling = 0, 'linear'


def optimizers(entry: Any, cls: type) -> Iterator[Any]:
  """The entries of a method's optimizers, in groups of it too."""
  for key, option in options.declared(cls).items():
    value = entry.get(key)
    if not isinstance(value, (Mapping, ConfigDict)):
      continue
    if option.part == 'optimizer':
      yield value
    elif group := option.group:
      yield from optimizers(value, group)
