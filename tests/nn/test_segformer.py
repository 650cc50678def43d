"""Sizes of the published SegFormer and DeepLabV3+, their options, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.deeplabv3plus import DeepLabV3Plus
from car_jax.nn.init import initialize
from car_jax.nn.segformer import SegFormer
from tests.nn.test_nets import shapes

TINY = dict(widths=(4, 4, 5, 8), depths=(1, 1, 1, 1), features=4)
SMALL_PLUS = DeepLabV3Plus(2, 18, 4, (1, 1, 1, 1), features=4, low_features=4)


@pytest.mark.parametrize(
  ('net', 'count'),
  [  # SegFormers as transformers counts them, with a scale more for each stage's projection
    (SegFormer(19, 'b0'), 3_719_027 + 4 * 256),
    (SegFormer(19, 'b1'), 13_682_131 + 4 * 256),
    (SegFormer(19, 'b2'), 27_361_235 + 4 * 768),
    (SegFormer(19, 'b0', normed_projections=False), 3_719_027),
    (DeepLabV3Plus(19, 18, features=128, low_features=12), 12_320_143),
    (DeepLabV3Plus(19, 50), 41_225_187),
    (DeepLabV3Plus(19, 101), 60_217_315),
  ],
)
def test_parameter_counts(net, count):
  out, variables = shapes(net, (1, 65, 97, 3))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == count
  assert out.shape == (1, 65, 97, 19)


@pytest.mark.parametrize('net', [SegFormer(2, **TINY), SMALL_PLUS])
def test_low_precision_inside_gives_float32_logits(net):
  out, variables = shapes(net.clone(dtype=jnp.bfloat16), (1, 32, 32, 3))
  assert out.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(variant='b6'), "no SegFormer 'b6'\n  known: b0, b1"),
    (dict(widths=(4, 5, 5, 8)), 'heads: 5 is no multiple of 2; nearest 4'),
    (dict(widths=(4, 4, 5)), '3 widths, 4 depths, 4 heads and 4 reductions'),
  ],
)
def test_sizes_that_it_refuses(options, message):
  with pytest.raises(UserError) as e:
    shapes(SegFormer(2, **options), (1, 32, 32, 3))
  assert message in str(e.value)


def test_drop_path_skips_branches_of_whole_images_in_training_only():
  net = SegFormer(2, **TINY, drop_path=0.9, dropout=0.0)
  x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)
  trains = lambda key: net.apply(
    variables, x, train=True, rngs={'dropout': key}, mutable=['batch_stats', 'intermediates']
  )
  run = jax.jit(lambda key: trains(key)[1]['intermediates']['backbone_features'][0])
  found = [np.asarray(run(jax.random.key(k))) for k in range(4)]
  assert any(np.abs(found[0] - other).max() > 1e-3 for other in found[1:])
  jax.eval_shape(lambda: net.apply(variables, x, train=False))  # draws nothing: it has no key


def test_nets_with_features_are_those_that_sow_them():
  small = {'deeplabv3': dict(depth=50, blocks=(1, 1, 1, 1), stem_channels=4, features=4)}
  small |= {'segformer': TINY, 'segnet': dict(widths=(4,) * 5, depths=(1,) * 5)}
  small |= {'deeplabv3plus': dict(depth=18, blocks=(1, 1, 1, 1), stem_channels=4, features=4)}
  small |= {'toy_calnet': dict(hidden=4)}
  for name, options in small.items():
    net = registry.net(dict(name=name) | options, num_classes=2)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    _, variables = shapes(net, x.shape)
    run = lambda v, x, net=net: net.apply(v, x, train=False, mutable=['intermediates'])[1]
    kept = jax.eval_shape(run, {k: variables[k] for k in ('params', 'batch_stats')}, x)
    assert ('backbone_features' in kept.get('intermediates', {})) == net.HAS_FEATURES
