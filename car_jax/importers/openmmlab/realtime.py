"""mmsegmentation's segmenters of few operations: BiSeNetV1, BiSeNetV2, ICNet, MobileNetV3."""

from collections.abc import Mapping
from typing import Any

from car_jax.importers.openmmlab import resnets
from car_jax.importers.openmmlab.translation import (
  Translation,
  batch_norm,
  classifier,
  common,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, norm, with_bias
from car_jax.importers.settings import REQUIRED, Settings


def _inner(of: Settings, *kinds: str) -> dict[str, Any]:
  """Our entry of the ResNet inside a backbone."""
  inner = of.part('backbone_cfg')
  inner.only('type', *kinds)
  entry = resnets.BACKBONES[inner('type')].entry(inner)
  inner.finish()
  return entry


def _table(prefix: str, path: str, names: Mapping[str, str]) -> list[Rule]:
  """Of ConvModules by name."""
  return [
    rule for theirs, ours in names.items() for rule in normed(f'{prefix}{theirs}', f'{path}{ours}')
  ]


def _bisenetv1(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  # Its units are made without these, and it resizes by nearest neighbours only.
  of.passed('norm_cfg', 'act_cfg', 'conv_cfg', 'align_corners', 'init_cfg', 'pretrained')
  entry = _inner(of, 'ResNet', 'ResNetV1c') | dict(name='bisenetv1')
  entry |= dict(spatial_features=of('spatial_channels', (64, 64, 64, 128)))
  entry |= dict(context_features=of('context_channels', (128, 256, 512))[0])
  return entry | dict(features=of('out_channels', 256), outputs=of('out_indices', (0, 1, 2)))


def _bisenetv1_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  names = {
    r'context_path\.arm(\d+)\.conv_layer': r'refine\1/project',
    r'context_path\.arm(\d+)\.atten_conv_layer\.1': r'refine\1/weigh',
    r'context_path\.conv_head(\d+)': r'smooth\1',
    r'context_path\.gap_conv\.1': 'global',
    r'spatial_path\.layer(\d)': r'spatial\1',
    r'ffm\.conv1': 'fusion/join',
    r'ffm\.conv_atten\.0': 'fusion/weigh',
  }
  inner = resnets.BACKBONES['ResNet'].rules(rf'{prefix}context_path\.backbone\.', path, part)
  return inner + _table(prefix, path, names)


def _bisenetv2(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  # Its units are made without these.
  of.passed('norm_cfg', 'act_cfg', 'conv_cfg', 'init_cfg', 'pretrained')
  detail = of('detail_channels', (64, 64, 128))
  semantic = of('semantic_channels', (16, 32, 64, 128))
  of.only('bga_channels', detail[-1])
  entry = dict(name='bisenetv2', detail_features=detail, semantic_features=semantic)
  entry |= dict(
    expansion=of('semantic_expansion_ratio', 6), outputs=of('out_indices', (0, 1, 2, 3, 4))
  )
  return entry | dict(corners=of.flag('align_corners'))


def _bisenetv2_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  stage, ours = r'semantic\.stage(\d)\.(\d)\.', r'stage\1_block\2'
  context = r'semantic\.stage4_CEBlock\.'
  names = {
    r'semantic\.stage1\.conv_first': 'stem/first',
    r'semantic\.stage1\.convs\.0': 'stem/narrow',
    r'semantic\.stage1\.convs\.1': 'stem/halve',
    r'semantic\.stage1\.fuse_last': 'stem/fuse',
    rf'{stage}conv1': f'{ours}/gather',
    rf'{stage}dwconv\.0': f'{ours}/depthwise1',
    rf'{stage}dwconv\.1': f'{ours}/depthwise2',
    rf'{stage}shortcut\.0\.(depthwise|pointwise)_conv': rf'{ours}/skip_\3',
    rf'{stage}conv2\.0': f'{ours}/contract',
    rf'{context}conv_gap': 'context/project',
    rf'{context}conv_last': 'context/fuse',
    r'bga\.(detail|semantic)_dwconv\.0\.depthwise_conv': r'aggregation/\1_depthwise',
    r'bga\.detail_down\.0': 'aggregation/detail_down',
    r'bga\.semantic_conv\.0': 'aggregation/semantic_gate',
    r'bga\.conv': 'aggregation/fuse',
  }
  for k in range(3):
    names[rf'detail\.detail_branch\.{k}\.(\d)'] = rf'detail{k + 1}_conv\1'
  table = _table(prefix, path, names) + norm(rf'{prefix}{context}gap\.1', f'{path}context/norm')
  point = rf'{prefix}bga\.(detail|semantic)_dwconv\.0\.pointwise_conv\.conv'
  return table + with_bias(point, rf'{path}aggregation/\1_point', convolution)


def _icnet(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  of.only('act_cfg', {'type': 'ReLU'})
  of.only('conv_cfg', None)
  usual_norm(of)
  of.passed('layer_channels', 'init_cfg', 'pretrained')
  entry = _inner(of, 'ResNetV1c') | dict(name='icnet', ceil_pool=True)
  entry |= dict(light_features=of('light_branch_middle_channels', 32))
  entry |= dict(pyramid_features=of('psp_out_channels', 512))
  entry |= dict(features=of('out_channels', (64, 256, 256)))
  entry |= dict(scales=of('pool_scales', (1, 2, 3, 6)))
  return entry | dict(corners=of.flag('align_corners'))


def _icnet_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  names = {r'psp_modules\.(\d+)\.1': r'pool/scale\1', 'psp_bottleneck': 'bottleneck'}
  names |= {'conv_sub2': 'project_middle', 'conv_sub4': 'project_coarse'}
  names |= {rf'conv_sub1\.{i}': f'light{i + 1}' for i in range(3)}
  inner = resnets.BACKBONES['ResNetV1c'].rules(rf'{prefix}backbone\.', path, part)
  return inner + _table(prefix, path, names)


def _icneck(of: Settings) -> dict[str, Any]:
  of.only('act_cfg', {'type': 'ReLU'})
  of.only('conv_cfg', None)
  usual_norm(of)
  of.passed('in_channels', 'init_cfg')
  entry = dict(name='icnet', features=of('out_channels', 128))
  return entry | dict(corners=of.flag('align_corners'))


def _icneck_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  names = {}
  for theirs, ours in (('24', 'middle'), ('12', 'fine')):
    names[rf'cff_{theirs}\.conv_low'] = f'fuse_{ours}/coarse'
    names[rf'cff_{theirs}\.conv_high'] = f'fuse_{ours}/fine'
  return _table(prefix, path, names)


def _mobilenetv3(of: Settings) -> dict[str, Any]:
  of.only('conv_cfg', None)
  of.passed('frozen_stages', 'norm_eval', 'with_cp', 'pretrained', 'init_cfg')
  entry = dict(name='mobilenetv3', variant=of('arch', 'small'), epsilon=batch_norm(of))
  entry |= dict(outputs=of('out_indices', (0, 1, 12)))
  return entry | dict(reduction=of('reduction_factor', 1))


def _mobilenetv3_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  block, ours = r'layer(\d+)\.', r'block\1/'
  names = {rf'{block}expand_conv': f'{ours}expand', rf'{block}depthwise_conv': f'{ours}depthwise'}
  names |= {rf'{block}linear_conv': f'{ours}contract', 'layer0': 'stem', r'layer\d+': 'last'}
  table = []
  for i, name in ((1, 'contract'), (2, 'expand')):
    place = f'{path}{ours}squeeze/{name}'
    table += with_bias(rf'{prefix}{block}se\.conv{i}\.conv', place, convolution)
  return table + _table(prefix, path, names)


def _lraspp(of: Settings) -> dict[str, Any]:
  of.only('input_transform', 'multiple_select')
  entry = common(of) | dict(name='lraspp', index=of('in_index'), epsilon=batch_norm(of, REQUIRED))
  return entry | dict(branches=of('branch_channels', (32, 64)))


def _lraspp_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = classifier(prefix) + with_bias(rf'{prefix}conv_up_input', 'mix', convolution)
  for theirs, ours in ((r'image_pool\.1\.conv', 'gate'), (r'convs\.conv(\d)', r'branch\1')):
    table.append(Rule(rf'{prefix}{theirs}\.weight', f'{ours}/kernel', convolution))
  return table + _table(prefix, '', {'aspp_conv': 'project', r'conv_ups\.conv_up(\d)': r'join\1'})


BACKBONES = {
  'BiSeNetV1': Translation('bisenetv1', _bisenetv1, _bisenetv1_rules),
  'BiSeNetV2': Translation('bisenetv2', _bisenetv2, _bisenetv2_rules),
  'ICNet': Translation('icnet', _icnet, _icnet_rules),
  'MobileNetV3': Translation('mobilenetv3', _mobilenetv3, _mobilenetv3_rules),
}
NECKS = {'ICNeck': Translation('icnet', _icneck, _icneck_rules)}
HEADS = {'LRASPPHead': Translation('lraspp', _lraspp, _lraspp_rules)}
