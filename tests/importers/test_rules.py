"""The table of names: everything wrong is told at once, on both sides."""

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.importers import rules

TABLE = [
  *rules.with_bias(r'(?:first|again)', 'conv', rules.convolution),
  *rules.norm(r'bn(\d)', r'norm\1'),
  *rules.with_bias('fc', 'dense', rules.linear),
]
rng = np.random.default_rng(0)
CONV = {'first.weight': rng.normal(size=(5, 4, 3, 2)), 'first.bias': rng.normal(size=5)}
NORM = {
  'bn1.weight': np.ones(5),
  'bn1.bias': np.zeros(5),
  'bn1.running_mean': np.full(5, 2.0),
  'bn1.running_var': np.full(5, 3.0),
  'bn1.num_batches_tracked': np.array(7, np.int64),
}


def test_names_layouts_and_types():
  out = rules.convert(TABLE, CONV | NORM | {'fc.weight': np.ones((2, 3)), 'fc.bias': np.ones(2)})
  kernel = out['params']['conv']['kernel']
  assert kernel.shape == (3, 2, 4, 5)
  assert kernel.dtype == np.float32
  assert kernel[2, 1, 3, 4] == np.float32(CONV['first.weight'][4, 3, 2, 1])
  assert out['params']['dense']['kernel'].shape == (3, 2)
  stats = out['batch_stats']['norm1']
  assert (stats['count'], stats['count'].dtype) == (7, np.int32)
  assert stats['mean'][0] == 2
  assert stats['var'][0] == 3
  assert set(out['params']['norm1']) == {'scale', 'bias'}


@pytest.mark.parametrize(
  ('layout', 'shape', 'ours'),
  [
    (rules.convolution, (5, 4, 3, 2), (3, 2, 4, 5)),
    (rules.transposed, (4, 5, 3, 2), (3, 2, 4, 5)),
    (rules.linear, (5, 4), (4, 5)),
    (rules.point, (5, 4, 1, 1), (4, 5)),
  ],
)
def test_layouts(layout, shape, ours):
  assert layout(np.zeros(shape)).shape == ours


def test_aliases_with_equal_values_are_one_weight_and_others_a_conflict():
  again = {k.replace('first', 'again'): v for k, v in CONV.items()}
  assert set(rules.convert(TABLE, CONV | again)['params']) == {'conv'}
  again['again.bias'] = again['again.bias'] + 1e-3
  with pytest.raises(UserError, match=r'1 weights do not fit:\n  again\.bias: differs from'):
    rules.convert(TABLE, CONV | again)


def test_leftovers_on_both_sides_and_shapes_are_listed_together():
  template = {
    'params': {'conv': {'kernel': np.zeros((3, 2, 4, 6)), 'bias': np.zeros(5)}, 'new': np.ones(1)},
    'batch_stats': {'norm1': {'mean': np.zeros(5)}},
  }
  weights = CONV | {'odd.weight': np.ones((2, 1)), 'fc.bias': np.ones(2), 'odd.bias': np.ones(3)}
  with pytest.raises(UserError) as e:
    rules.convert(TABLE, weights, template)
  assert sorted(str(e.value).splitlines()) == sorted(
    [
      '6 weights do not fit:',
      '  odd.weight (2, 1): no place for it',
      '  odd.bias (3,): no place for it',
      '  params/new (1,): not in the file',
      '  batch_stats/norm1/mean (5,): not in the file',
      '  params/dense/bias (2,): not in the network',
      '  params/conv/kernel: (3, 2, 4, 5) in the file, (3, 2, 4, 6) in the network',
    ]
  )


def test_a_long_list_is_cut():
  weights = {f'odd{i}': np.ones(1) for i in range(50)}
  with pytest.raises(UserError) as e:
    rules.convert(TABLE, weights)
  lines = str(e.value).splitlines()
  assert lines[0] == '50 weights do not fit:'
  assert lines[-1] == '  and 30 more'
  assert len(lines) == 22


def test_ignored_names_must_match_whole():
  assert rules.convert(TABLE, CONV | {'old.w': np.ones(1)}, ignore=[r'old\..*'])
  with pytest.raises(UserError, match='very_old'):
    rules.convert(TABLE, CONV | {'very_old.w': np.ones(1)}, ignore=[r'old\..*'])


def test_a_weight_whose_layout_has_other_axes_is_listed_with_the_rest():
  with pytest.raises(UserError, match=r'first\.weight \(5, 4\)'):
    rules.convert(TABLE, CONV | {'first.weight': np.ones((5, 4))})
