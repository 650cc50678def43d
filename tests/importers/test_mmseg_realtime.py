"""What of mmsegmentation's configs of small segmenters is read, and what is refused."""

import copy

import pytest

from car_jax.errors import UserError
from car_jax.importers.openmmlab import model

INNER = dict(type='ResNetV1c', depth=18, in_channels=3, num_stages=4, out_indices=(0, 1, 2, 3))
FCN = dict(type='FCNHead', in_channels=128, channels=128, num_classes=3, norm_cfg=dict(type='BN'))
ICNET = dict(
  type='EncoderDecoder',
  backbone=dict(type='ICNet', backbone_cfg=INNER, layer_channels=(128, 512)),
  neck=dict(type='ICNeck', in_channels=(64, 256, 256), out_channels=128),
  decode_head=FCN | dict(in_index=2, align_corners=True),
)
LRASPP = dict(
  type='EncoderDecoder',
  backbone=dict(type='MobileNetV3', arch='large', out_indices=(1, 3, 16)),
  decode_head=dict(
    type='LRASPPHead',
    in_channels=(16, 24, 960),
    in_index=(0, 1, 2),
    channels=128,
    input_transform='multiple_select',
    num_classes=3,
    norm_cfg=dict(type='BN'),
  ),
)
SEMFPN = dict(
  type='EncoderDecoder',
  backbone=INNER,
  neck=dict(type='FPN', in_channels=(64, 128, 256, 512), out_channels=256, num_outs=4),
  decode_head=dict(
    type='FPNHead',
    in_channels=(256,) * 4,
    in_index=(0, 1, 2, 3),
    feature_strides=(4, 8, 16, 32),
    channels=128,
    num_classes=3,
    norm_cfg=dict(type='BN'),
  ),
)


def changed(config, part, **options):
  config = copy.deepcopy(config)
  config[part] |= options
  return config


def test_alignment_of_corners_is_each_part_s_own():
  spec = model.spec(ICNET)[0]
  assert spec['align_corners']
  assert not spec['backbone']['corners']
  assert not spec['neck']['corners']
  assert model.spec(changed(ICNET, 'neck', align_corners=True))[0]['neck']['corners']


def test_the_norms_epsilon_is_read():
  norm = dict(type='SyncBN', eps=0.01, requires_grad=True)
  spec = model.spec(changed(LRASPP, 'backbone', norm_cfg=norm, reduction_factor=2))[0]
  assert spec['backbone']['epsilon'] == 0.01
  assert spec['backbone']['reduction'] == 2
  assert spec['head']['epsilon'] == 1e-5
  assert model.spec(changed(LRASPP, 'decode_head', norm_cfg=norm))[0]['head']['epsilon'] == 0.01


@pytest.mark.parametrize(
  ('config', 'part', 'options', 'message'),
  [
    (ICNET, 'backbone', dict(act_cfg=dict(type='ELU')), 'backbone.act_cfg'),
    (ICNET, 'backbone', dict(backbone_cfg=INNER | dict(type='ResNet')), 'backbone_cfg.type'),
    (ICNET, 'backbone', dict(backbone_cfg=INNER | dict(flag=1)), 'backbone_cfg.flag'),
    (ICNET, 'neck', dict(norm_cfg=dict(type='BN', eps=0.1)), 'neck.norm_cfg.eps = 0.1'),
    (ICNET, 'neck', dict(norm_cfg=dict(type='GN', num_groups=32)), "norm_cfg.type = 'GN'"),
    (LRASPP, 'backbone', dict(conv_cfg=dict(type='Conv2dAdaptivePadding')), 'backbone.conv_cfg'),
    (SEMFPN, 'neck', dict(add_extra_convs='on_input', num_outs=5), 'neck.add_extra_convs'),
    (SEMFPN, 'neck', dict(norm_cfg=dict(type='BN')), 'neck.norm_cfg'),
    (SEMFPN, 'neck', dict(upsample_cfg=dict(mode='bilinear')), 'neck.upsample_cfg'),
    (SEMFPN, 'decode_head', dict(norm_cfg=dict(type='BN', eps=1e-3)), 'decode_head.norm_cfg.eps'),
  ],
)
def test_what_would_change_numbers_unread_is_refused(config, part, options, message):
  model.spec(config)
  with pytest.raises(UserError) as e:
    model.spec(changed(config, part, **options))
  assert message in str(e.value)
