"""How a part of another library's config becomes one of ours."""

from collections.abc import Callable
from typing import Any, NamedTuple

from car_jax.errors import UserError
from car_jax.importers.rules import Rule, convolution, norm, with_bias
from car_jax.importers.settings import REQUIRED, Settings


class Translation(NamedTuple):
  """Of a part: its settings -> our entry dict(name=.., ..), and -> the rules of its weights.

  `entry` takes what it knows of the settings. `rules` gets the pattern of what stands
  before their names, what stands before our paths, and our part. `part` is what lookup.py calls
  ours.
  """

  part: str
  entry: Callable[[Settings], dict[str, Any]]
  rules: Callable[[str, str, Any], list[Rule]]


def normed(pattern: str, path: str) -> list[Rule]:
  """A `ConvModule`: a convolution without bias, a batch norm."""
  kernel = Rule(rf'{pattern}\.conv\.weight', f'{path}/conv/kernel', convolution)
  return [kernel, *norm(rf'{pattern}\.bn', f'{path}/norm')]


def head_settings(of: Settings, *, normed: bool = True, **entry: Any) -> dict[str, Any]:
  """Our entry of a head that reads one map and has the usual batch norms, unless not `normed`."""
  of.only('input_transform', None)
  usual_norm(of, REQUIRED if normed else None)
  return common(of) | dict(index=of('in_index', -1)) | entry


def common(of: Settings, act: str = 'ReLU') -> dict[str, Any]:
  """What all heads have, but for `norm_cfg` and which maps are read."""
  of.passed('in_channels', 'align_corners', 'loss_decode', 'init_cfg', 'sampler', 'ignore_index')
  of.only('out_channels', None, of('num_classes'))  # one alone would be compared to a threshold
  of.passed('threshold')
  of.only('act_cfg', {'type': act})
  of.only('conv_cfg', None)
  return {'features': of('channels'), 'dropout': float(of('dropout_ratio', 0.1))}


def batch_norm(of: Settings, default: Any = None) -> float:
  """The epsilon of its batch norms."""
  norm = of.part('norm_cfg', default or {'type': 'BN'})
  norm.only('type', 'BN', 'SyncBN')
  norm.passed('requires_grad', 'momentum')
  epsilon = float(norm('eps', 1e-5))
  norm.finish()
  return epsilon


def usual_norm(of: Settings, default: Any = None) -> None:
  """Raises UserError for norms that are not batch norms of the usual epsilon.

  `default` is REQUIRED where theirs has no norms if none is given.
  """
  if (epsilon := batch_norm(of, default)) != 1e-5:
    raise UserError(
      f'its config has {of.where}.norm_cfg.eps = {epsilon!r}, which no net here has\n'
      '  what can be read: 1e-05'
    )


def layer_norms(of: Settings, default: Any = None, key: str = 'norm_cfg') -> float:
  """The epsilon of its layer norms; torch's own where they are given without."""
  default = default or {'type': 'LN'}
  norm = of.part(key, default)
  norm.only('type', default['type'])
  norm.passed('requires_grad')
  epsilon = float(norm('eps', 1e-5))
  norm.finish()
  return epsilon


def classifier(prefix: str) -> list[Rule]:
  return with_bias(rf'{prefix}conv_seg', 'head', convolution)
