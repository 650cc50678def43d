"""Heads of ANN, APCNet, CCNet, GCNet and FCN: against loops over places, sizes, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from car_jax import registry
from car_jax.nn.ann import PyramidAttention
from car_jax.nn.apc import AdaptiveContext
from car_jax.nn.cc import CrissCrossAttention
from car_jax.nn.fcn_head import FCNHead
from car_jax.nn.gc import GlobalContext
from car_jax.nn.init import initialize
from tests.nn.test_nets import shapes
from tests.whole import whole

SMALL = dict(name='resnet', depth=18, output_stride=8, stem_channels=4, blocks=(1, 1, 1, 1))
HEADS = {
  'ann': dict(features=6, inner=3, scales=(1, 3), attentions=2),
  'apc': dict(features=6, scales=(1, 2)),
  'cc': dict(features=8),
  'fcn': dict(features=6),
  'gc': dict(features=16, ratio=0.5, scales=True),
}


def random_like(tree, seed=0):
  """Parameters and statistics of the tree's shapes; variances positive."""
  rng = np.random.default_rng(seed)
  draw = lambda path, a: rng.normal(size=a.shape).astype(np.float32)
  drawn = jax.tree_util.tree_map_with_path(draw, tree)
  positive = lambda path, a: np.abs(a) + 0.5 if path[-1].key == 'var' else a
  return jax.tree_util.tree_map_with_path(positive, drawn)


def applied(module, *inputs, **kw):
  """-> (what the module gives with random variables, its parameters, its statistics)."""
  made = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **kw), *inputs)
  variables = random_like(made)
  run = whole(lambda v, *x: module.apply(v, *x, **kw))
  return run(variables, *inputs), variables['params'], variables.get('batch_stats', {})


def features(*shape):
  return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def softmax(x):
  e = np.exp(x - np.max(x))
  return e / e.sum()


def linear(x, of):
  return x @ np.float64(of['kernel'][0, 0]) + of['bias']


def unit(x, of, stats):
  """A 1 x 1 convolution, batch norm by running statistics, ReLU."""
  gain = of['norm']['scale'] / np.sqrt(stats['norm']['var'] + 1e-5)
  y = x @ np.float64(of['conv']['kernel'][0, 0]) - stats['norm']['mean']
  return np.maximum(y * gain + of['norm']['bias'], 0)


def bins(x, scale):
  """[h, w, D] -> [scale * scale, D]: means over the bins of torch's adaptive pooling."""
  h, w, _ = x.shape
  start, stop = lambda i, n: i * n // scale, lambda i, n: -(-(i + 1) * n // scale)
  rows = [slice(start(i, h), stop(i, h)) for i in range(scale)]
  columns = [slice(start(i, w), stop(i, w)) for i in range(scale)]
  return np.array([x[r, c].mean((0, 1)) for r in rows for c in columns])


def test_criss_cross_attention_sees_a_column_and_a_row():
  x = features(2, 4, 5, 16)
  ours, p, _ = applied(CrissCrossAttention(), x)
  want = np.empty(x.shape)
  for b, i, j in np.ndindex(2, 4, 5):
    seen = {(k, j) for k in range(4)} | {(i, k) for k in range(5)}  # a set: its own place once
    others = np.array([x[b, r, c] for r, c in sorted(seen)])
    weights = softmax(linear(others, p['key']) @ linear(x[b, i, j], p['query']))
    want[b, i, j] = x[b, i, j] + p['gamma'] * (weights @ linear(others, p['value']))
  np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-4)


def test_two_passes_of_criss_cross_attention_carry_to_every_place():
  def reached(passes):
    def run(x):
      y, attend = x, lambda y: module.apply(variables, y)
      for _ in range(passes):
        y = attend(y)
      return y[0, 0, 0].sum()

    return np.abs(whole(jax.grad(run))(features(1, 3, 4, 8))[0]).sum(-1) > 0

  module = CrissCrossAttention()
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), features(1, 3, 4, 8)))
  variables = random_like(made)
  assert reached(1).sum() == 3 + 4 - 1
  assert reached(2).all()


@pytest.mark.parametrize('shared', [True, False])
def test_attention_to_means_over_bins(shared):
  x, other = features(1, 4, 5, 6), features(1, 4, 5, 6 if shared else 7)
  module = PyramidAttention(3, (1, 3), shared)
  ours, p, s = applied(module, x, other, train=False)
  assert ('key' in p) != shared
  name = 'query' if shared else 'key'
  keys = unit(np.float64(other[0]), p[name], s[name])
  values = linear(np.float64(other[0]), p['value'])
  keys, values = (np.concatenate([bins(a, 1), bins(a, 3)]) for a in (keys, values))
  want = np.empty(x[0].shape)
  for i, j in np.ndindex(4, 5):
    query = unit(x[0, i, j], p['query'], s['query'])
    want[i, j] = linear(softmax(keys @ query / np.sqrt(3)) @ values, p['out'])
  np.testing.assert_allclose(ours[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('fusion', [True, False])
def test_adaptive_context_weighs_each_bin_alone(fusion):
  x = features(1, 4, 5, 6)
  ours, p, s = applied(AdaptiveContext(3, 3, fusion), x, train=False)
  of = lambda y, name: unit(y, p[name], s[name])
  pooled, reduced = of(bins(np.float64(x[0]), 3), 'pooled'), of(np.float64(x[0]), 'reduce')
  whole_map = of(reduced.mean((0, 1)), 'whole')
  want = np.empty((4, 5, 3))
  for i, j in np.ndindex(4, 5):
    affinity = 1 / (1 + np.exp(-linear(reduced[i, j] + whole_map, p['affinity'])))
    actual = sum(a * b for a, b in zip(affinity, pooled, strict=True))
    y = np.maximum(of(actual, 'residual') + reduced[i, j], 0)
    want[i, j] = of(y, 'fuse') if fusion else y
  np.testing.assert_allclose(ours[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('pooling', ['attention', 'mean'])
@pytest.mark.parametrize(('scales', 'shifts'), [(True, True), (True, False), (False, True)])
def test_global_context_scales_and_shifts_channels(pooling, scales, shifts):
  x = features(1, 3, 4, 8)
  ours, p, _ = applied(GlobalContext(0.5, pooling, scales, shifts), x)
  assert len(p) == 3 * (scales + shifts) + (pooling == 'attention')
  places = np.float64(x[0]).reshape(12, 8)
  weights = softmax(linear(places, p['mask'])[:, 0]) if 'mask' in p else np.full(12, 1 / 12)
  context = weights @ places

  def transformed(name):
    y = linear(context, p[f'{name}_contract'])
    assert y.shape == (4,)
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    y = y * p[f'{name}_norm']['scale'] + p[f'{name}_norm']['bias']
    return linear(np.maximum(y, 0), p[f'{name}_expand'])

  want = np.float64(x)
  want = want / (1 + np.exp(-transformed('scale'))) if scales else want
  want = want + transformed('shift') if shifts else want
  np.testing.assert_allclose(ours, want, rtol=1e-4, atol=1e-4)


def test_how_far_the_head_of_an_fcn_sees():
  def reach(**options):
    head, x = FCNHead(2, 3, **options), np.ones((1, 17, 1, 2), np.float32)
    made = jax.eval_shape(lambda: head.init(jax.random.key(0), [x], train=False))
    ones = jax.tree.map(lambda a: np.ones(a.shape, np.float32), made)
    seen = whole(jax.grad(lambda x: head.apply(ones, [x], train=False)[0, 8].sum()))(x)
    return [*np.flatnonzero(seen[0, :, 0, 0]) - 8]

  alone = dict(concat_input=False)
  assert reach(**alone, num_convs=0) == [0]
  assert reach(**alone, num_convs=1, dilation=3) == [-3, 0, 3]
  assert reach(**alone, num_convs=2, kernel_size=5) == [*range(-4, 5)]
  assert reach(num_convs=1, dilation=4) == [-5, -4, -3, -1, 0, 1, 3, 4, 5]


def test_which_map_a_head_reads():
  maps = [np.full((1, 2, 2, 3), k, np.float32) for k in (1, 2)]
  run = lambda index: applied(FCNHead(2, 3, num_convs=1, index=index), maps, train=False)[0]
  assert not np.array_equal(run(0), run(1))
  np.testing.assert_array_equal(run(-1), run(1))


@pytest.mark.parametrize(
  ('head', 'millions'), [('ann', 43.86), ('apc', 53.99), ('cc', 47.46), ('gc', 47.27)]
)
def test_parameters_of_the_published_nets_on_a_resnet_50(head, millions):
  backbone = dict(name='resnet', depth=50, output_stride=8, deep_stem=True)
  net = registry.net(dict(name='composed', backbone=backbone, head=dict(name=head)), num_classes=19)
  out, variables = shapes(net, (1, 65, 97, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert round(count / 1e6, 2) == millions
  assert out.shape == (1, 65, 97, 19)


@pytest.mark.parametrize(
  ('head', 'silent'),
  [
    ('ann', [f'{b}/attention1/out/{n}' for b in ('fusion', 'context') for n in ('kernel', 'bias')]),
    ('cc', ['attention/gamma']),
    ('gc', ['context/shift_expand/kernel', 'context/shift_expand/bias']),
  ],
)
def test_attention_starts_silent(head, silent):
  spec = dict(name='composed', backbone=SMALL, head=dict(name=head) | HEADS[head])
  net = registry.net(spec, num_classes=3)
  first = initialize(net, 0, np.zeros((1, 32, 48, 3), np.float32), train=False)
  params = flatten_dict(first['params'], sep='/')
  assert not any(params[path].any() for path in silent)
  assert all(
    a.any() for path, a in params.items() if path.endswith(('value/kernel', 'query/kernel'))
  )


@pytest.mark.parametrize('head', HEADS)
def test_every_parameter_learns(head):
  spec = dict(name='composed', backbone=SMALL, head=dict(name=head, dropout=0.0) | HEADS[head])
  net = registry.net(spec, num_classes=3)
  x, to = features(3, 32, 48, 3), features(3, 32, 48, 3)
  made = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
  variables = random_like({k: made[k] for k in ('params', 'batch_stats')})

  def loss(params):
    v = variables | {'params': params}
    logits, _ = net.apply(v, x, train=True, mutable=['batch_stats'])
    return jnp.mean(jnp.square(logits - to))

  gradient = flatten_dict(whole(jax.grad(loss))(variables['params']), sep='/')
  # A softmax sees no constant; and a norm by the batch's statistics takes one away.
  idle = {'cc': ('attention/key/bias',), 'gc': ('context/mask/bias',)}
  blocks = [f'{b}/attention{i}' for b in ('fusion', 'context') for i in (1, 2)]
  idle['ann'] = tuple(f'{b}/{name}/bias' for b in blocks for name in ('value', 'out'))
  largest = max(np.abs(g).max() for g in gradient.values())
  assert np.isfinite(largest)
  still = {path for path, g in gradient.items() if np.abs(g).max() < 1e-6 * largest}
  assert still == {*idle.get(head, ())}
