"""BiT's ResNetV2: standardised kernels, zeros around the stem's pooling, dilation."""

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.init import initialize
from car_jax.nn.layers import max_pool3
from car_jax.nn.resnetv2 import ResNetV2, StandardisedConv
from tests.nn.test_nets import shapes
from tests.whole import whole

SMALL = dict(blocks=(1, 1), widths=(128, 128), stem_channels=32)


@pytest.mark.parametrize(('size', 'stride', 'dilation'), [(1, 2, 1), (3, 2, 1), (3, 1, 2)])
def test_a_standardised_convolution_against_loops(size, stride, dilation):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 7, 6, 4)).astype(np.float32)
  kernel = rng.normal(3, 2, size=(size, size, 4, 5)).astype(np.float32)
  net = StandardisedConv(5, size, stride, dilation)
  actual = whole(lambda k, x: net.apply({'params': {'kernel': k}}, x))(kernel, x)
  reach = dilation * (size // 2)
  full = np.pad(x[0], ((reach, reach), (reach, reach), (0, 0))).astype(float)
  assert actual.shape == (1, -(-7 // stride), -(-6 // stride), 5)
  for o in range(5):
    weights = (kernel[..., o] - kernel[..., o].mean()) / kernel[..., o].std()
    for i, j in np.ndindex(actual.shape[1:3]):
      y, x = i * stride, j * stride
      seen = full[y : y + 2 * reach + 1 : dilation, x : x + 2 * reach + 1 : dilation]
      np.testing.assert_allclose(actual[0, i, j, o], (seen * weights).sum(), atol=1e-4)


@pytest.mark.parametrize('side', [5, 6])
def test_pooling_with_zeros_around(side):
  x = np.random.default_rng(0).normal(-1, 1, size=(1, side, 7, 2)).astype(np.float32)
  actual = whole(lambda x: max_pool3(x, border=0))(x)
  full = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  assert actual.shape == (1, 3, 4, 2)
  for i, j in np.ndindex(3, 4):
    want = full[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1))
    np.testing.assert_array_equal(actual[0, i, j], want)


def test_the_first_map_is_the_stem_and_images_do_not_see_each_other():
  net = ResNetV2(**SMALL)
  x = np.random.default_rng(0).normal(size=(2, 33, 40, 3)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)
  run = whole(lambda v, x: net.apply(v, x, train=True))
  both, first = run(variables, x), run(variables, x[:1])
  assert [m.shape[1:] for m in both] == [(17, 20, 32), (9, 10, 128), (5, 5, 128)]
  for a, b in zip(both, first, strict=True):
    np.testing.assert_allclose(a[:1], b, atol=1e-4)


def test_stages_beyond_the_output_stride_are_dilated():
  plan = ResNetV2(blocks=(2, 1, 3, 2), output_stride=8).plan()
  assert plan == [(1, [1, 1]), (2, [1]), (1, [1, 2, 2]), (1, [2, 4])]
  plan = ResNetV2(blocks=(1, 1, 1, 2), output_stride=16).plan()
  assert plan == [(1, [1]), (2, [1]), (2, [1]), (1, [1, 2])]
  maps, _ = shapes(
    ResNetV2(**SMALL | dict(blocks=(1, 1, 1), widths=(128,) * 3), output_stride=8), (1, 32, 32, 3)
  )
  assert [m.shape[1] for m in maps] == [16, 8, 4, 4]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(widths=(256, 512, 1024)), '4 numbers of blocks and 3 widths'),
    (dict(widths=(256, 512, 1000, 2048)), '32 groups: 1000 is no multiple of 128; nearest 1024'),
    (dict(stem_channels=40), '32 groups: 40 is no multiple of 32; nearest 32'),
  ],
)
def test_options_that_it_refuses(options, message):
  with pytest.raises(UserError) as e:
    ResNetV2(**options)
  assert message in str(e.value)
