"""UPerNet: published sizes, its head on constant maps, training, what its configs may say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.importers.openmmlab import model
from car_jax.nn.init import initialize
from car_jax.nn.uper import UPerHead
from tests.nn.test_nets import shapes
from tests.whole import whole

SWIN = dict(name='swin', width=8, depths=(2, 1), heads=(1, 2), window=3)
CONVNEXT = dict(name='convnext', widths=(4, 8), depths=(1, 1), layer_scale=0.5)
BIT = dict(name='resnetv2', blocks=(1, 1), widths=(128, 128), stem_channels=32)


def composed(backbone, classes=19, **head):
  head = dict(name='upernet') | head
  return registry.net(dict(name='composed', backbone=backbone, head=head), num_classes=classes)


@pytest.mark.parametrize(
  ('backbone', 'millions'),
  [  # as mmsegmentation counts them, 19 classes
    (dict(name='resnet', depth=18, deep_stem=True), 40.81),
    (dict(name='resnetv2'), 64.02),
    (dict(name='convnext', widths=(128, 256, 512, 1024), depths=(3, 3, 27, 3)), 120.82),
    (dict(name='swin', width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)), 231.88),
  ],
)
def test_parameter_counts(backbone, millions):
  index = (1, 2, 3, 4) if backbone['name'] == 'resnetv2' else ()
  out, variables = shapes(composed(backbone, index=index), (1, 65, 97, 3))
  assert out.shape == (1, 65, 97, 19)
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert round(count / 1e6, 2) == millions


def test_the_head_on_constant_maps():
  """Far from the borders a 3 x 3 convolution of a constant is the sum of its kernel."""
  rng = np.random.default_rng(0)
  net = UPerHead(3, 4, scales=(1, 2), index=(1, 2, -1), dtype=None)
  values = [rng.normal(size=d) for d in (2, 3, 4, 5)]
  sides = 96, 48, 24, 12
  maps = [
    np.broadcast_to(v, (1, s, s, len(v))).astype(np.float32)
    for v, s in zip(values, sides, strict=True)
  ]
  template = initialize(net, 0, maps, train=False)
  drawn = lambda a: rng.uniform(0.1, 1, a.shape).astype(np.float32) * rng.choice([-1, 1], a.shape)
  params = jax.tree.map(drawn, template['params'])
  stats = jax.tree.map(
    lambda a: rng.uniform(0.1, 1, a.shape).astype(np.float32), template['batch_stats']
  )
  run = whole(lambda v, m: net.apply(v, m, train=False))
  actual = run({'params': params, 'batch_stats': stats}, maps)
  assert actual.shape == (1, 48, 48, 3)

  def unit(x, *names):
    p, s = params, stats
    for name in names:
      p, s = p[name], s[name]
    y = x @ p['conv']['kernel'].astype(float).sum((0, 1))
    y = (y - s['norm']['mean']) / np.sqrt(s['norm']['var'] + 1e-5)
    return np.maximum(y * p['norm']['scale'] + p['norm']['bias'], 0)

  fine, middle, coarse = values[1:]
  pooled = [unit(coarse, 'pool', f'scale{i}') for i in (0, 1)]
  coarse = unit(np.concatenate([coarse, *pooled]), 'bottleneck')
  middle = unit(middle, 'lateral1') + coarse
  fine = unit(fine, 'lateral0') + middle
  joined = [unit(fine, 'smooth0'), unit(middle, 'smooth1'), coarse]
  want = (
    unit(np.concatenate(joined), 'fuse') @ params['head']['kernel'][0, 0] + params['head']['bias']
  )
  np.testing.assert_allclose(actual[0, 24, 24], want, rtol=1e-4)


@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT, BIT])
def test_every_parameter_trains(backbone):
  net = composed(backbone, 3, features=4, scales=(1, 2), dropout=0.0)
  x = np.random.default_rng(0).uniform(-1, 1, size=(2, 32, 40, 3)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)

  def loss(params, x):
    variables_now = variables | {'params': params}
    logits, _ = net.apply(
      variables_now, x, train=True, mutable=['batch_stats'], rngs={'dropout': jax.random.key(0)}
    )
    target = jnp.arange(logits.size).reshape(logits.shape) % 7
    return jnp.square(logits - target).mean()

  grads = whole(jax.grad(loss))(variables['params'], x)
  for path, leaf in jax.tree_util.tree_flatten_with_path(grads)[0]:
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    assert np.isfinite(leaf).all(), name
    if not name.endswith('key/bias'):  # it moves all of a query's products alike
      assert np.abs(leaf).max() > 0, name


@pytest.mark.parametrize('backbone', [SWIN, CONVNEXT, BIT])
def test_low_precision_inside_gives_float32_logits(backbone):
  net = composed(backbone, 3, features=4).clone(dtype='bfloat16')
  out, variables = shapes(net, (1, 32, 32, 3))
  maps, _ = shapes(net.parts()[0], (1, 32, 32, 3))
  assert (out.dtype, {m.dtype for m in maps}) == (jnp.float32, {jnp.dtype('bfloat16')})
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}


def test_a_map_that_the_backbone_does_not_give():
  with pytest.raises(UserError, match='UPerHead has no map 2'):
    shapes(composed(SWIN, index=(0, 2)), (1, 32, 32, 3))


HEAD = dict(type='UPerHead', in_channels=[8, 16], in_index=[0, 1], channels=4, num_classes=3)
HEAD |= dict(norm_cfg=dict(type='BN'))


def read(**backbone):
  return model.spec(dict(type='EncoderDecoder', backbone=backbone, decode_head=HEAD))[0]['backbone']


def test_backbones_by_name():
  base = read(type='mmcls.ConvNeXt', arch='base', out_indices=[0, -1], gap_before_final_norm=False)
  assert (base['widths'], base['depths'][2]) == ((128, 256, 512, 1024), 27)
  assert (base['outputs'], base['epsilon'], base['shrink_epsilon']) == ((0, 3), 1e-6, 1e-5)
  later = read(type='mmpretrain.ConvNeXt', gap_before_final_norm=False)
  assert (later['outputs'], later['shrink_epsilon']) == ((3,), 1e-6)
  wide = read(type='TIMMBackbone', model_name='resnetv2_101x3_bitm_in21k')
  assert (wide['blocks'], wide['stem_channels'], wide['widths'][0]) == ((3, 4, 23, 3), 192, 768)
  swin = read(
    type='SwinTransformer', depths=[2, 2], num_heads=[3, 6], out_indices=[1], strides=[4, 2]
  )
  assert (swin['outputs'], swin['drop_path'], swin['epsilon']) == ((1,), 0.1, 1e-5)


@pytest.mark.parametrize(
  ('backbone', 'message'),
  [
    (dict(type='SwinTransformer', use_abs_pos_embed=True), 'backbone.use_abs_pos_embed = True'),
    (dict(type='SwinTransformer', strides=[4, 2, 2, 1]), 'backbone.strides'),
    (dict(type='SwinTransformer', norm_cfg=dict(type='BN')), "norm_cfg.type = 'BN'"),
    (dict(type='mmcls.ConvNeXt'), 'backbone.gap_before_final_norm'),
    (dict(type='mmcls.ConvNeXt', arch='tidy', gap_before_final_norm=False), "no ConvNeXt 'tidy'"),
    (dict(type='TIMMBackbone', model_name='resnet50'), "model_name = 'resnet50'"),
    (dict(type='TIMMBackbone', model_name='resnetv2_50x1_bitm', stem_type='same'), 'stem_type'),
  ],
)
def test_configs_that_it_refuses(backbone, message):
  with pytest.raises(UserError) as e:
    read(**backbone)
  assert message in str(e.value)
