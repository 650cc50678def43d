"""ICNet and its neck: sizes, what halving does, what each branch sees, slopes."""

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.nn.icnet import ICNeck, ICNet
from tests.nn.learning import still
from tests.nn.test_nets import shapes
from tests.whole import whole

SMALL = dict(name='icnet', depth=18, stem_channels=4, blocks=(1, 1, 1, 1), light_features=2)
SMALL |= dict(pyramid_features=3, features=(3, 4, 5), scales=(1, 2))


def spec(backbone, neck, head):
  head = dict(name='fcn', num_convs=1, concat_input=False) | head
  return dict(name='composed', backbone=backbone, neck=neck, head=head)


@pytest.mark.parametrize('size', [(6, 8), (7, 5)])
def test_halving_takes_means_of_four_or_keeps_corners(size):
  x = np.float32(np.random.default_rng(0).normal(size=(1, *size, 2)))
  h, w = size[0] // 2, size[1] // 2
  means = whole(lambda x: ICNet(corners=False)._halved(x))(x)
  for i, j in np.ndindex(h, w):
    want = x[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((0, 1))
    np.testing.assert_allclose(means[0, i, j], want, rtol=1e-5, atol=1e-6)
  kept = whole(lambda x: ICNet(align_corners=True)._halved(x))(x)
  assert kept.shape == means.shape == (1, h, w, 2)
  np.testing.assert_allclose(kept[0, [0, -1]][:, [0, -1]], x[0, [0, -1]][:, [0, -1]], rtol=1e-5)


def test_the_branches_sizes():
  maps, _ = shapes(registry.build('backbone', SMALL), (1, 97, 64, 3))
  # 97 -> 49, 25, 13; its half 48 -> 24, pooled to 13, 7; the half of that
  assert [a.shape[1:] for a in maps] == [(13, 8, 3), (7, 5, 4), (3, 2, 5)]


def test_the_smallest_image():
  net = registry.build('backbone', SMALL)
  assert [a.shape[1:3] for a in shapes(net, (1, net.least, net.least, 3))[0]] == [
    (2, 2),
    (2, 2),
    (1, 1),
  ]
  assert any(0 in a.shape for a in shapes(net, (1, net.least - 1, net.least - 1, 3))[0])


def test_the_neck_sees_every_map_and_guides_by_the_two_coarser():
  rng = np.random.default_rng(0)
  maps = [np.float32(rng.normal(size=(1, *s))) for s in ((8, 12, 3), (5, 7, 4), (2, 3, 5))]
  net = ICNeck(4)
  made = jax.eval_shape(lambda: net.init(jax.random.key(0), maps, train=False))
  variables = jax.tree.map(lambda a: np.float32(rng.random(a.shape)), made)
  run = whole(lambda v, *maps: net.apply(v, maps, train=False))
  out = run(variables, *maps)
  assert [x.shape[1:] for x in out] == [(5, 7, 4), (8, 12, 4), (8, 12, 4)]
  reached = []
  for k in range(3):
    moved = run(variables, *(x + (i == k) for i, x in enumerate(maps)))
    reached.append([not np.allclose(a, b) for a, b in zip(out, moved, strict=True)])
  assert reached == [[False, False, True], [False, True, True], [True, True, True]]


@pytest.mark.parametrize(('depth', 'millions'), [(18, 24.87), (50, 47.53)])
def test_the_published_sizes(depth, millions):
  whole_net = spec(dict(name='icnet', depth=depth), dict(name='icnet'), dict(features=128))
  out, variables = shapes(registry.net(whole_net, num_classes=19), (1, 65, 97, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert round(count / 1e6, 2) == millions
  assert out.shape == (1, 65, 97, 19)


def test_every_parameter_learns():
  net = registry.net(spec(SMALL, dict(name='icnet', features=4), dict(features=4)), num_classes=3)
  x = np.float32(np.random.default_rng(0).normal(size=(4, 96, 64, 3)))
  assert still(net, x) == []
