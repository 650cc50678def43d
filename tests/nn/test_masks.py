"""MaskFormer and Mask2Former: their attention, codes and scores against loops; they train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.deformable_attention import DeformableAttention, ray_offsets, sampled
from car_jax.nn.init import initialize
from car_jax.nn.mask2former import seen
from car_jax.nn.mask_classification import Attention, Residual, log_scores, sine_codes
from tests.nn.test_nets import shapes
from tests.whole import whole

flatten = jax.tree_util.tree_flatten_with_path
SWIN = dict(name='swin', width=4, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), window=3)
RESNET = dict(name='resnet', depth=50, blocks=(1, 1, 1, 1), stem_channels=4)
SMALL = dict(features=32, mask_features=8, queries=5, depth=3, heads=2, expansion=8, dropout=0.0)
HEADS = {
  'maskformer': SMALL | dict(width=12),
  'mask2former': SMALL | dict(pixel_depth=1, pixel_expansion=8),
}


def net_of(head, backbone=RESNET, **options):
  head = dict(name=head) | HEADS[head] | options
  return registry.net(dict(name='composed', backbone=backbone, head=head), num_classes=3)


def between(values, x, y):
  """A map's [h, w, D] value at a point, bilinear between the middles of places, zero beyond."""
  h, w = values.shape[:2]
  total = np.zeros(values.shape[2:])
  for j in range(h):
    for i in range(w):
      total += max(0, 1 - abs(i - x)) * max(0, 1 - abs(j - y)) * values[j, i]
  return total


def test_sampling_is_bilinear_with_zeros_beyond():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(2, 3, 4, 2, 5))
  at = rng.uniform(-2, 5, size=(2, 6, 2, 3, 2))
  at[0, 0, 0] = [(0, 0), (3, 2), (-1, 1)]  # corners, and where nothing is left of a border
  weights = rng.normal(size=(2, 6, 2, 3))
  actual = whole(sampled)(*map(np.float32, (values, at, weights)))
  for b, n, a in np.ndindex(2, 6, 2):
    points = zip(at[b, n, a], weights[b, n, a], strict=True)
    want = sum(share * between(values[b, :, :, a], *point) for point, share in points)
    np.testing.assert_allclose(actual[b, n, a], want, atol=1e-5)


def test_deformable_attention_is_what_its_definition_says():
  rng, sizes, heads, points = np.random.default_rng(1), [(2, 3), (4, 5)], 2, 3
  layer = DeformableAttention(heads, points)
  x, codes = (rng.normal(size=s).astype(np.float32) for s in ((1, 26, 4), (26, 4)))
  draw = lambda leaf: rng.normal(size=leaf.shape).astype(np.float32)
  variables = jax.tree.map(
    draw, jax.eval_shape(lambda: layer.init(jax.random.key(0), x, codes, sizes))
  )
  actual = jax.jit(lambda v, x, codes: layer.apply(v, x, codes, sizes))(variables, x, codes)
  dense = lambda name, x: x @ leaves[name]['kernel'] + leaves[name]['bias']
  leaves, query = variables['params'], x[0] + codes
  offsets = dense('offsets', query).reshape(26, heads, 2, points, 2)
  weights = np.exp(dense('weights', query).reshape(26, heads, 2 * points))
  weights = (weights / weights.sum(-1, keepdims=True)).reshape(26, heads, 2, points)
  maps = np.split(dense('value', x[0]), [6])
  maps = [m.reshape(*size, heads, 2) for m, size in zip(maps, sizes, strict=True)]
  own = [((i + 0.5) / w, (j + 0.5) / h) for h, w in sizes for j in range(h) for i in range(w)]
  total = np.zeros((26, heads, 2))
  for n, a, level, p in np.ndindex(26, heads, 2, points):
    h, w = sizes[level]
    dx, dy = offsets[n, a, level, p]
    place = own[n][0] * w - 0.5 + dx, own[n][1] * h - 0.5 + dy
    total[n, a] += weights[n, a, level, p] * between(maps[level][:, :, a], *place)
  np.testing.assert_allclose(actual[0], dense('out', total.reshape(26, 4)), atol=1e-4)


def test_points_begin_on_rays():
  rays = ray_offsets(8, 2, 3)
  assert rays.shape == (8, 2, 3, 2)
  np.testing.assert_allclose(rays[:, :, 0], rays[:, :, 2] / 3)
  np.testing.assert_allclose(np.abs(rays[:, 0, 1]).max(-1), 2)
  np.testing.assert_allclose(rays[1, 0, 0], (1, 1))


def test_codes_are_sines_of_the_row_then_of_the_column():
  codes = np.asarray(sine_codes((3, 5), 8))
  for y, x, k in np.ndindex(3, 5, 4):
    rate = 10000 ** (-(k // 2 * 2) / 4) * 2 * np.pi
    wave = (np.sin, np.cos)[k % 2]
    assert codes[y, x, k] == pytest.approx(wave((y + 1) / 3 * rate), abs=2e-5)
    assert codes[y, x, 4 + k] == pytest.approx(wave((x + 1) / 5 * rate), abs=2e-5)


def test_a_query_attends_where_its_mask_lies_and_everywhere_if_nowhere():
  masks = np.array([[[[1, -1], [-1, -1]], [[0, -1], [-2, -3]]]], np.float32)  # [1, 2, 2, 2]
  where = np.asarray(seen(masks))
  assert where.tolist() == [[[True, False, True, False], [True] * 4]]
  rng = np.random.default_rng(0)
  query, value = (rng.normal(size=(1, n, 4)).astype(np.float32) for n in (2, 4))
  attend = Attention(2)
  variables = attend.init(jax.random.key(0), query, value, value, train=False)
  run = jax.jit(lambda value: attend.apply(variables, query, value, value, where, train=False))
  other = value + np.float32([0, 1, 0, 1])[:, None]  # where the first one does not look
  np.testing.assert_allclose(run(value)[0, 0], run(other)[0, 0], atol=1e-6)
  assert np.abs(run(value)[0, 1] - run(other)[0, 1]).max() > 1e-2


def test_scores_are_sums_over_queries_and_no_class_counts_for_none():
  rng = np.random.default_rng(2)
  classes, masks = rng.normal(size=(1, 4, 3)), rng.normal(size=(1, 2, 3, 4))
  actual = whole(log_scores)(*map(np.float32, (classes, masks)), (2, 3), align_corners=False)
  shares = np.exp(classes[0]) / np.exp(classes[0]).sum(-1, keepdims=True)
  want = sum(shares[q, :2] / (1 + np.exp(-masks[0, :, :, q, None])) for q in range(4))
  np.testing.assert_allclose(np.exp(actual[0]), want, rtol=1e-5)
  np.testing.assert_allclose(
    jax.nn.softmax(actual[0]), want / want.sum(-1, keepdims=True), rtol=1e-5
  )
  nothing = whole(log_scores)(np.float32(classes), np.float32(masks) - 1e9, (2, 3), align_corners=0)
  assert np.isfinite(nothing).all()


def blind(head, name):
  """Whether the loss has no gradient there: what all keys share changes no attention, and queries
  of MaskFormer, which begin as zeros, see the same in each other.
  """
  if head == 'maskformer' and name.startswith('layer0/self_attention/'):
    return '/out/' not in name and not name.endswith('value/bias')
  return name.endswith('key/bias')


@pytest.mark.parametrize('first', [False, True])
def test_norms_come_after_the_sum_or_at_the_start_of_a_branch(first):
  x = np.random.default_rng(4).normal(size=(2, 6)).astype(np.float32)
  residual = Residual(0.0, first)
  run = lambda x: residual.init_with_output(jax.random.key(0), x, jnp.square, train=True)[0]
  normed = lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  want = x + normed(x) ** 2 if first else normed(x + x**2)
  np.testing.assert_allclose(jax.jit(run)(x), want, atol=1e-5)


@pytest.mark.parametrize(('head', 'backbone'), [('maskformer', RESNET), ('mask2former', SWIN)])
def test_every_weight_learns(head, backbone):
  net, rng = net_of(head, backbone), np.random.default_rng(3)
  x = rng.normal(size=(1, 38, 66, 3)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)
  stirred = lambda leaf: leaf + np.float32(0.1 * rng.normal(size=leaf.shape))  # some begin as zeros
  variables['params'] = jax.tree.map(stirred, variables['params'])

  def loss(params):
    logits = net.apply({**variables, 'params': params}, x, train=False)
    assert logits.shape == (1, 38, 66, 3)
    return jnp.square(logits - jnp.arange(3)).mean()

  gradients = whole(jax.grad(loss))(variables['params'])
  named = [('/'.join(str(p.key) for p in path), g) for path, g in flatten(gradients)[0]]
  assert [n for n, g in named if not np.isfinite(g).all()] == []
  assert [n for n, g in named if not np.any(g) and not blind(head, n)] == []


@pytest.mark.parametrize('head', HEADS)
def test_logits_are_float32_of_the_image_s_size_with_and_without_dropout(head):
  net = net_of(head, dropout=0.5).clone(dtype='bfloat16')
  out, variables = shapes(net, (1, 40, 33, 3))
  assert (out.shape, out.dtype) == ((1, 40, 33, 3), jnp.float32)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}
  train = lambda v, x: net.apply(
    v, x, train=True, rngs={'dropout': jax.random.key(0)}, mutable=['batch_stats']
  )[0]
  x = jax.ShapeDtypeStruct((1, 40, 33, 3), jnp.float32)
  assert jax.eval_shape(train, variables, x).shape == (1, 40, 33, 3)


@pytest.mark.parametrize(
  ('head', 'options', 'message'),
  [
    ('maskformer', dict(features=24), '24 is no multiple of 32; nearest 32'),
    ('maskformer', dict(width=20, heads=3), '20 is no multiple of 3; nearest 21'),
    ('maskformer', dict(width=14), '14 is no multiple of 4; nearest 16'),
    ('mask2former', dict(heads=3), '32 is no multiple of 3; nearest 33'),
  ],
)
def test_sizes_that_they_refuse(head, options, message):
  with pytest.raises(UserError) as e:
    shapes(net_of(head, **options), (1, 32, 32, 3))
  assert message in str(e.value)
