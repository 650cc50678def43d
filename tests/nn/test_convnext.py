"""ConvNeXt: a block against loops, and what its outputs are."""

import math

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.convnext import Block, ConvNeXt
from tests.nn.test_nets import shapes
from tests.whole import whole


def test_a_block_against_loops():
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  h, w, d = 5, 6, 3
  params = {'depthwise': {'kernel': draw(7, 7, 1, d), 'bias': draw(d)}}
  params |= {'norm': {'scale': draw(d), 'bias': draw(d)}, 'scale': draw(d)}
  params |= {'expand': {'kernel': draw(d, 4 * d), 'bias': draw(4 * d)}}
  params |= {'contract': {'kernel': draw(4 * d, d), 'bias': draw(d)}}
  x = draw(1, h, w, d)
  net = Block(1e-6, 0.5, 1e-6)
  actual = whole(lambda p, x: net.apply({'params': p}, x, train=False))(params, x)
  for i in range(h):
    for j in range(w):
      y = params['depthwise']['bias'].astype(float)
      for a in range(max(i - 3, 0), min(i + 4, h)):
        for b in range(max(j - 3, 0), min(j + 4, w)):
          y += x[0, a, b] * params['depthwise']['kernel'][a - i + 3, b - j + 3, 0]
      y = (y - y.mean()) / np.sqrt(y.var() + 1e-6)
      y = y * params['norm']['scale'] + params['norm']['bias']
      y = y @ params['expand']['kernel'] + params['expand']['bias']
      y = y * [(1 + math.erf(v / math.sqrt(2))) / 2 for v in y]
      y = y @ params['contract']['kernel'] + params['contract']['bias']
      np.testing.assert_allclose(actual[0, i, j], x[0, i, j] + params['scale'] * y, atol=1e-4)


def test_maps_of_chosen_stages_and_blocks_without_factors():
  net = ConvNeXt((4, 8, 16), (1, 1, 1), layer_scale=0.0, outputs=(0, 2))
  assert net.least == 16
  maps, variables = shapes(net, (1, 39, 64, 3))
  assert [m.shape for m in maps] == [(1, 9, 16, 4), (1, 2, 4, 16)]
  assert 'scale' not in variables['params']['stage1_block0']
  assert 'stage2_norm' not in variables['params']


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(widths=(4, 8)), '2 widths and 4 depths'),
    (dict(outputs=(4,)), 'no stage 4; the last is 3'),
  ],
)
def test_options_that_it_refuses(options, message):
  with pytest.raises(UserError) as e:
    ConvNeXt(**options)
  assert message in str(e.value)
