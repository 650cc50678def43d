"""Configs of transformers as mmsegmentation reads them: defaults, other forms, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.importers.openmmlab import model
from car_jax.importers.openmmlab.transformers import BACKBONES
from car_jax.importers.settings import Settings

VIT = dict(type='VisionTransformer', img_size=(32, 48), patch_size=8, embed_dims=8, num_heads=2)
UP = dict(type='SETRUPHead', in_channels=8, channels=4, num_classes=3, norm_cfg=dict(type='BN'))
MLA = dict(type='MLANeck', in_channels=[8, 8], out_channels=4, norm_cfg=dict(type='BN'))
MASKS = dict(type='SegmenterMaskTransformerHead', in_channels=8, channels=8, num_classes=3)
MASKS |= dict(num_layers=1, num_heads=2, embed_dims=6)


def entry(**options):
  return BACKBONES['VisionTransformer'].entry(Settings(dict(VIT) | options, 'backbone'))


def read(backbone, head, **rest):
  config = dict(type='EncoderDecoder', backbone=dict(VIT, num_layers=2) | backbone)
  return model.net(config | dict(decode_head=head) | rest)


def test_defaults_are_mmsegmentations():
  plain = BACKBONES['VisionTransformer'].entry(Settings({'type': 'VisionTransformer'}, 'backbone'))
  assert plain['image_size'] == (224, 224)
  assert (plain['width'], plain['depth'], plain['heads'], plain['patch']) == (768, 12, 12, 16)
  assert (plain['epsilon'], plain['interpolation'], plain['outputs']) == (1e-5, 'bicubic', ())


@pytest.mark.parametrize(
  ('given', 'want'), [(-1, ()), (3, (3,)), ([3, 1], (1, 3)), ([0, -1, 11, 40], (0, 11))]
)
def test_maps_come_in_the_order_of_layers_and_only_one_number_counts_from_the_end(given, want):
  assert entry(out_indices=given)['outputs'] == want


@pytest.mark.parametrize(('given', 'want'), [(32, (32, 32)), ([40], (40, 40)), ([8, 16], (8, 16))])
def test_sizes_of_images(given, want):
  assert entry(img_size=given)['image_size'] == want


@pytest.mark.parametrize(
  ('backbone', 'head', 'rest', 'message'),
  [
    (dict(interpolate_mode='nearest'), UP, {}, "backbone.interpolate_mode = 'nearest'"),
    (dict(output_cls_token=True), UP, {}, 'backbone.output_cls_token = True'),
    (dict(num_fcs=3), UP, {}, 'backbone.num_fcs = 3'),
    (dict(norm_cfg=dict(type='BN')), UP, {}, "backbone.norm_cfg.type = 'BN'"),
    (dict(act_cfg=dict(type='ReLU')), UP, {}, 'backbone.act_cfg = '),
    ({}, UP | dict(num_conv=2), {}, 'decode_head.num_conv, which'),
    ({}, UP, dict(neck=MLA), 'neck.act_cfg = None'),
  ],
)
def test_what_no_net_here_has_is_refused(backbone, head, rest, message):
  with pytest.raises(UserError) as e:
    read(backbone, head, **rest)
  assert message in str(e.value)


def layer(name, d):
  shapes = {f'{name}.attn.attn.in_proj_weight': (3 * d, d)}
  shapes |= {f'{name}.attn.attn.out_proj.weight': (d, d)}
  shapes |= {f'{name}.ln{i}.{leaf}': (d,) for i in (1, 2) for leaf in ('weight', 'bias')}
  for i, out, into in (('0.0', 2 * d, d), ('1', d, 2 * d)):
    shapes |= {f'{name}.ffn.layers.{i}.weight': (out, into), f'{name}.ffn.layers.{i}.bias': (out,)}
  return shapes


def test_weights_without_biases_in_attention_and_with_a_norm_of_patches_have_their_places():
  options = dict(mlp_ratio=2, qkv_bias=False)
  net = read(options | dict(patch_norm=True, final_norm=True), MASKS | options)
  shapes = {'backbone.cls_token': (1, 1, 8), 'backbone.pos_embed': (1, 4 * 6 + 1, 8)}
  for name in ('patch_embed.norm', 'ln1'):
    shapes |= {f'backbone.{name}.weight': (8,), f'backbone.{name}.bias': (8,)}
  shapes |= {'backbone.patch_embed.projection.weight': (8, 3, 8, 8)}
  shapes |= {'backbone.patch_embed.projection.bias': (8,)}
  shapes |= layer('backbone.layers.0', 8) | layer('backbone.layers.1', 8)
  shapes |= layer('decode_head.layers.0', 6) | {'decode_head.cls_emb': (1, 3, 6)}
  shapes |= {'decode_head.dec_proj.weight': (6, 8), 'decode_head.dec_proj.bias': (6,)}
  shapes |= {f'decode_head.{p}_proj.weight': (6, 6) for p in ('patch', 'classes')}
  for name, d in (('decoder_norm', 6), ('mask_norm', 3)):
    shapes |= {f'decode_head.{name}.weight': (d,), f'decode_head.{name}.bias': (d,)}
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  template = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
  weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
  placed = model.to_variables(net, weights, {'params': template['params']})
  count = lambda tree: sum(a.size for a in jax.tree.leaves(tree))
  assert count(placed) == count(weights)
