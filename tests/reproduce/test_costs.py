"""What is counted of a training before it runs, against programs counted by hand."""

import pytest

from car_jax import config as configs
from car_jax.reproduce import costs, dry
from car_jax.reproduce.experiments import LIDC_V2


def test_a_training_is_counted_by_its_kinds_of_steps():
  config = configs.load(
    'tests/small.py:car',
    [('data.name', 'lidc_crops'), ('data.size', '24'), ('data.batch', '2')],
  )
  data = costs.blank(config, {'lidc_crops': LIDC_V2}, {'lidc_crops': LIDC_V2.counts[0]})
  cost = costs.of(config, data)
  longer = configs.override(config, [('method.rest_steps', '0'), ('steps', '60')])
  critic = costs.of(longer, data)
  assert (cost.steps, critic.steps) == (6, 60)
  assert 0 < cost.flops < critic.flops  # the critic's steps have its own descent besides
  rate = costs.Rate(critic.flops, critic.moved / 2, '')
  assert critic.hours(rate) == pytest.approx((60 / 3600, 120 / 3600))


def test_costs_are_printed_without_powers_of_ten():
  cost = costs.Cost(1000, 1.9142e15, 12.346e9, 10**9)
  (row,) = dry.as_table({'a': (cost, 3)}, costs.Rate(1e13, 1e12, '')).rows
  assert [cell.text for cell in row.cells][1:5] == ['1,000', '1,910', '12.3', '1']
  assert not any('e+' in cell.text for cell in row.cells)
