"""Swin: shifted windows against masked attention over the whole map, merged places, map sizes."""

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.swin import SwinTransformer, WindowAttention, merged
from tests.nn.test_nets import shapes
from tests.whole import whole


def dense(x, params, heads, side, shift):
  """Attention of every place to those of its window, [h, w, D]; windows are laid out as a grid.

  Beyond the map are zeros up to whole windows. The grid starts at `shift`: what is before its first
  line, or beyond its last, makes smaller windows.
  """
  h, w, d = x.shape
  full = np.zeros((-(-h // side) * side, -(-w // side) * side, d))
  full[:h, :w] = x
  y, x = (i.ravel() for i in np.indices(full.shape[:2]))
  project = lambda name, z: z @ params[name]['kernel'] + params[name]['bias']
  query, key, value = (project(n, full.reshape(-1, d)) for n in ('query', 'key', 'value'))
  out, one = [], d // heads
  window = np.floor((np.stack([y, x]) - shift) / side)
  together = (window[:, :, None] == window[:, None]).all(0)
  row = (y[:, None] - y + side - 1) * (2 * side - 1) + x[:, None] - x + side - 1
  for i in range(heads):
    part = np.s_[:, i * one : (i + 1) * one]
    affinity = query[part] @ key[part].T / np.sqrt(one)
    bias = params['position_bias'][np.where(together, row, 0), i]
    weights = np.where(together, np.exp(affinity + bias), 0)
    out.append(weights / weights.sum(1, keepdims=True) @ value[part])
  y = project('out', np.concatenate(out, 1))
  return y.reshape(*full.shape[:2], d)[:h, :w]


@pytest.mark.parametrize(
  ('h', 'w', 'side', 'shift'),
  [(7, 10, 4, 2), (3, 5, 4, 2), (4, 8, 4, 0), (5, 9, 3, 1), (6, 5, 5, 2)],
)
def test_windows_are_attention_among_the_places_of_a_shifted_grid(h, w, side, shift):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  dense_layer = lambda: {'kernel': draw(6, 6), 'bias': draw(6)}
  params = {name: dense_layer() for name in ('query', 'key', 'value', 'out')}
  params['position_bias'] = draw((2 * side - 1) ** 2, 2)
  x = draw(2, h, w, 6)
  net = WindowAttention(2, side, shift)
  actual = whole(lambda p, x: net.apply({'params': p}, x))(params, x)
  for image, seen in zip(x, actual, strict=True):
    np.testing.assert_allclose(seen, dense(image, params, 2, side, shift), atol=2e-5)


@pytest.mark.parametrize('by_channel', [False, True])
def test_merged_places(by_channel):
  x = np.random.default_rng(0).normal(size=(2, 3, 5, 7)).astype(np.float32)
  actual = whole(lambda x: merged(x, by_channel=by_channel))(x)
  assert actual.shape == (2, 2, 3, 28)
  full = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  down_columns = [full[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
  along_rows = [full[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
  want = np.stack(along_rows, -1).reshape(actual.shape)
  want = want if by_channel else np.concatenate(down_columns, -1)
  np.testing.assert_array_equal(actual, want)


def test_maps_of_any_image_and_of_chosen_stages():
  net = SwinTransformer(8, (1, 2, 1, 1), (1, 2, 2, 4), 3, outputs=(1, 3))
  maps, variables = shapes(net, (1, 37, 61, 3))
  assert [m.shape for m in maps] == [(1, 5, 8, 16), (1, 2, 2, 64)]  # ceil(37 / 8), ..
  norms = [f'stage{k}_norm' for k in (1, 2, 3, 4) if f'stage{k}_norm' in variables['params']]
  assert norms == ['stage2_norm', 'stage4_norm']  # where a map is given


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(heads=(3, 6, 12)), '4 depths and 3 heads'),
    (dict(width=32), 'heads in stage 0: 32 is no multiple of 3; nearest 33'),
    (dict(outputs=(0, 4)), 'no stage 4; the last is 3'),
  ],
)
def test_options_that_it_refuses(options, message):
  with pytest.raises(UserError) as e:
    SwinTransformer(**options)
  assert message in str(e.value)
