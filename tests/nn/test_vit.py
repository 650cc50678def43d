"""Vision transformers, SETR's and Segmenter's heads: against loops, and by what they must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn import resize
from car_jax.nn.init import initialize
from car_jax.nn.mla import MLANeck
from car_jax.nn.segmenter import MaskTransformerHead
from car_jax.nn.vit import Attention, Block, VisionTransformer
from tests.nn.test_nets import shapes
from tests.whole import whole

rng = np.random.default_rng(0)
TINY = dict(image_size=(16, 16), patch=4, width=8, depth=2, heads=2)
UP, NAIVE = dict(name='setr_up', features=4), dict(convolutions=1, scale=4, kernel=1)
HEADS = {
  'pup': (UP, None, (64, 64)),
  'naive': (UP | NAIVE, None, (16, 16)),
  'mla': (dict(name='setr_mla', features=4), dict(name='mla', features=4), (16, 16)),
  'segmenter': (dict(name='segmenter', features=8, heads=2, depth=1), None, (4, 4)),
}


def normal(*shape):
  return rng.normal(size=shape).astype(np.float32)


def drawn(module, *inputs, **kw):
  """Variables that no symmetry hides: every parameter normal."""
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, **kw))
  draw = {'params': lambda a: 0.5 * normal(*a.shape)}
  draw['batch_stats'] = lambda a: np.ones(a.shape, a.dtype)
  return {k: jax.tree.map(draw[k], v) for k, v in made.items()}


def run(module, variables, *inputs, **kw):
  return whole(module.apply)(variables, *inputs, **kw)


def small(kind, **backbone):
  head, neck, _ = HEADS[kind]
  parts = dict(backbone=dict(name='vit', **TINY, outputs=(0, 1)) | backbone, head=head, neck=neck)
  return registry.net(dict(name='composed', **parts), num_classes=3)


@pytest.mark.parametrize('size', [(3, 8), (11, 5), (4, 6)])
def test_bicubic_resizing_is_a_hermite_spline_of_three_quarters_of_central_differences(size):
  def along(values, target):
    padded = np.pad(values, 4, mode='edge')  # the border repeats
    slopes = 0.75 * (padded[2:] - padded[:-2])
    spline = CubicHermiteSpline(np.arange(len(slopes)) - 3, padded[1:-1], slopes)
    return spline((np.arange(target) + 0.5) * len(values) / target - 0.5)

  x = normal(2, 4, 6, 3)
  want = np.apply_along_axis(along, 2, np.apply_along_axis(along, 1, x, size[0]), size[1])
  np.testing.assert_allclose(whole(resize.resize_bicubic)(x, size), want, atol=1e-5)


def test_attention_by_loops():
  x, attend = normal(2, 5, 6), Attention(heads=3)
  variables = drawn(attend, x)
  p = variables['params']
  dense = lambda y, name: y @ p[name]['kernel'] + p[name]['bias']
  want = np.zeros((2, 5, 6))
  for b in range(2):
    query, key, value = (dense(x[b], name) for name in ('query', 'key', 'value'))
    for of in (slice(2 * h, 2 * h + 2) for h in range(3)):
      for i in range(5):
        weights = np.exp([query[i, of] @ key[j, of] / np.sqrt(2) for j in range(5)])
        want[b, i, of] = weights / weights.sum() @ value[:, of]
  np.testing.assert_allclose(run(attend, variables, x), dense(want, 'out'), atol=1e-5)


def test_a_block_does_not_know_the_order_of_tokens():
  x, block, order = normal(1, 7, 6), Block(heads=2), rng.permutation(7)
  variables = drawn(block, x, train=False)
  y, moved = (run(block, variables, a, train=False) for a in (x, x[:, order]))
  np.testing.assert_allclose(moved, y[:, order], atol=1e-5)


def test_images_are_filled_up_with_zeros_and_codes_resized():
  net, x = VisionTransformer(**TINY), normal(1, 17, 10, 3)
  variables = drawn(net, x, train=False)
  assert variables['params']['positions'].shape == (1, 17, 8)
  (y,) = run(net, variables, x, train=False)
  (filled,) = run(net, variables, np.pad(x, ((0, 0), (0, 3), (0, 2), (0, 0))), train=False)
  assert y.shape == (1, 5, 3, 8)
  np.testing.assert_allclose(y, filled, atol=1e-6)
  codes = variables['params']['positions']
  grid = whole(resize.resize_bicubic)(codes[:, 1:].reshape(1, 4, 4, 8), (5, 3))
  resized = np.concatenate([codes[:, :1], grid.reshape(1, 15, 8)], 1)
  exact = VisionTransformer(**TINY | dict(image_size=(20, 12)))
  params = variables['params'] | {'positions': resized}
  np.testing.assert_allclose(run(exact, {'params': params}, x, train=False)[0], y, atol=1e-6)


def test_as_many_patches_in_another_shape_have_the_codes_as_they_are():
  net, x = VisionTransformer(**TINY), normal(1, 16, 16, 3)
  variables = drawn(net, x, train=False)
  patches = x.reshape(4, 4, 4, 4, 3).swapaxes(1, 2).reshape(16, 4, 4, 3)
  wide = patches.reshape(2, 8, 4, 4, 3).swapaxes(1, 2).reshape(1, 8, 32, 3)
  (y,), (other,) = (run(net, variables, a, train=False) for a in (x, wide))
  np.testing.assert_allclose(other.reshape(y.shape), y, atol=1e-5)


@pytest.mark.parametrize('keep', [True, False])
def test_the_class_token_counts_only_where_it_is_kept(keep):
  net, x = VisionTransformer(**TINY, keep_class_token=keep), normal(1, 16, 16, 3)
  variables = drawn(net, x, train=False)
  (y,) = run(net, variables, x, train=False)
  variables['params'] |= {'class_token': variables['params']['class_token'] + normal(1, 1, 8)}
  (other,) = run(net, variables, x, train=False)
  assert (np.abs(y - other).max() > 1e-3) == keep


def test_maps_are_those_of_the_blocks_that_are_named_and_the_norm_is_the_last_ones():
  x, kw = normal(1, 16, 16, 3), TINY | dict(depth=3, final_norm=True)
  net = VisionTransformer(**kw, outputs=(0, 2))
  variables = drawn(net, x, train=False)
  first, last = run(net, variables, x, train=False)
  (only,) = run(VisionTransformer(**kw), variables, x, train=False)
  np.testing.assert_array_equal(last, only)
  inner = {k: v for k, v in variables['params'].items() if k not in ('block1', 'block2', 'norm')}
  short = VisionTransformer(**TINY | dict(depth=1))
  np.testing.assert_allclose(run(short, {'params': inner}, x, train=False)[0], first, atol=1e-6)
  norm = variables['params']['norm']
  plain = (last - norm['bias']) / norm['scale']
  np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-4)
  np.testing.assert_allclose(plain.std(-1), 1, atol=1e-3)


def test_aggregation_goes_from_deep_to_shallow():
  maps, neck = [normal(1, 2, 2, 5) for _ in range(3)], MLANeck(features=4)
  variables = drawn(neck, maps, train=False)
  want = run(neck, variables, maps, train=False)
  for k in range(3):
    changed = [m + normal(*m.shape) if i == k else m for i, m in enumerate(maps)]
    got = run(neck, variables, changed, train=False)
    assert [bool((a != b).any()) for a, b in zip(got, want, strict=True)] == [
      i >= 2 - k for i in range(3)
    ]


def test_masks_are_cosines_normed_over_classes():
  x, head = [normal(1, 3, 2, 5)], MaskTransformerHead(4, features=8, heads=2)
  variables = drawn(head, x, train=False)
  params, order = variables['params'], rng.permutation(4)
  y = run(head, variables, x, train=False)
  assert y.shape == (1, 3, 2, 4)
  longer = {k: {'kernel': 3 * params[k]['kernel']} for k in ('project_patches', 'project_classes')}
  np.testing.assert_allclose(run(head, {'params': params | longer}, x, train=False), y, atol=1e-4)
  moved = {'class_tokens': params['class_tokens'][:, order]}
  moved |= {'mask_norm': {k: v[order] for k, v in params['mask_norm'].items()}}
  other = run(head, {'params': params | moved}, x, train=False)
  np.testing.assert_allclose(other, y[..., order], atol=1e-4)
  plain = (y - params['mask_norm']['bias']) / params['mask_norm']['scale']
  np.testing.assert_allclose(plain.mean(-1), 0, atol=1e-4)


@pytest.mark.parametrize('kind', HEADS)
def test_every_parameter_learns(kind):
  net, x = small(kind, outputs=(0, 1) if kind == 'mla' else ()), normal(2, 16, 16, 3)
  variables = initialize(net, 0, x, train=False)
  target = normal(2, 16, 16, 3)

  def loss(params, x):
    v = {'params': params, 'batch_stats': variables.get('batch_stats', {})}
    key = {'dropout': jax.random.key(0)}
    y, state = net.apply(v, x, train=True, rngs=key, mutable=['batch_stats', 'intermediates'])
    (coarse,) = state['intermediates']['coarse_logits']
    return (y * target).sum(), coarse

  slopes, coarse = whole(jax.grad(loss, has_aux=True))(variables['params'], x)
  assert coarse.shape == (2, *HEADS[kind][2], 3)
  leaves = jax.tree_util.tree_flatten_with_path(slopes)[0]
  paths = {'/'.join(p.key for p in path): slope for path, slope in leaves}
  assert all(np.isfinite(slope).all() for slope in paths.values())
  # a key's bias adds the same to all of a query's scores
  still = [p for p, slope in paths.items() if not slope.any() and not p.endswith('key/bias')]
  assert still == []


@pytest.mark.parametrize('kind', HEADS)
def test_low_precision_inside_gives_float32_logits(kind):
  out, variables = shapes(small(kind).clone(dtype=jnp.bfloat16), (1, 20, 12, 3))
  assert out.dtype == jnp.float32
  assert out.shape == (1, 20, 12, 3)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}


def test_parameter_counts_of_the_published_nets():
  """As counted of mmsegmentation's nets, in hundredths of millions."""
  large = dict(name='vit', image_size=(768, 768), width=1024, depth=24, heads=16)
  levels, masks = dict(outputs=(5, 11, 17, 23)), dict(name='segmenter', features=1024, heads=16)
  nets = [
    (large, dict(name='setr_up'), None, 30960),
    (large, dict(name='setr_up') | NAIVE, None, 30573),
    (large | levels, dict(name='setr_mla'), dict(name='mla'), 31066),
    (large | dict(final_norm=True), masks, None, 33382),
  ]
  for backbone, head, neck, count in nets:
    spec = dict(name='composed', backbone=backbone, head=head, neck=neck)
    _, variables = shapes(registry.net(spec, num_classes=19), (1, 64, 64, 3))
    assert round(sum(a.size for a in jax.tree.leaves(variables['params'])) / 1e4) == count


def test_sizes_that_it_refuses():
  with pytest.raises(UserError, match='depth 2 has no block 2\n  the last one is 1'):
    VisionTransformer(**TINY, outputs=(0, 2))
  with pytest.raises(UserError, match='attention.s heads: 8 is no multiple of 3; nearest 9'):
    shapes(VisionTransformer(**TINY | dict(heads=3)), (1, 16, 16, 3))
