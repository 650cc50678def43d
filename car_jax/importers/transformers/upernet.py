"""UPerNet of transformers."""

from typing import Any

from car_jax.importers.rules import Rule, convolution, norm, with_bias
from car_jax.importers.settings import Settings
from car_jax.importers.transformers import backbones


def entry(of: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
  """-> our entries of backbone and head. Raises UserError for what no net here has."""
  of.passed(*backbones.SOURCE, 'use_auxiliary_head', 'loss_ignore_index')
  of.passed(*(f'auxiliary_{key}' for key in ('loss_weight', 'in_channels', 'channels')))
  of.passed('auxiliary_num_convs', 'auxiliary_concat_input')
  backbone = of.part('backbone_config')
  backbone.only('out_features', backbones.STAGES, default=None)  # without, the last map alone
  head = dict(name='upernet', features=of('hidden_size', 512), dropout=0.0)
  head |= dict(scales=of('pool_scales', (1, 2, 3, 6)))
  return backbones.entry(backbone, 'swin', 'convnext', 'resnet'), head


def rules(prefix: str = r'decode_head\.') -> list[Rule]:
  table = with_bias(rf'{prefix}classifier', 'head', convolution)
  for theirs, ours in (
    (r'psp_modules\.(\d+)\.1', r'pool/scale\1'),
    ('bottleneck', 'bottleneck'),
    (r'lateral_convs\.(\d+)', r'lateral\1'),
    (r'fpn_convs\.(\d+)', r'smooth\1'),
    ('fpn_bottleneck', 'fuse'),
  ):
    table.append(Rule(rf'{prefix}{theirs}\.conv\.weight', f'{ours}/conv/kernel', convolution))
    table += norm(rf'{prefix}{theirs}\.batch_norm', f'{ours}/norm')
  return table
