"""What is counted of a training before it runs, against programs counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from car_jax import config as configs
from car_jax.reproduce import costs, dry
from car_jax.reproduce.experiments import LIDC_V2

N = 64


def test_a_loop_counts_as_often_as_it_turns():
  once = lambda x: x @ x
  inner = lambda x: jax.lax.scan(lambda c, _: (once(c), None), x, None, length=3)[0]
  outer = lambda x: jax.lax.scan(lambda c, _: (inner(c) + once(c), None), x, None, length=5)[0]
  traced = jax.jit(outer).trace(jax.ShapeDtypeStruct((N, N), jnp.float32))
  plain = costs.analysed(traced.lower())[0]
  whole = plain + sum(costs.repeated(traced.jaxpr.jaxpr))[0]
  products = 5 * (3 + 1)
  assert whole == pytest.approx(products * 2 * N**3, rel=0.02)
  assert plain < whole / 5  # what XLA's analysis says by itself


def test_live_bytes_are_those_of_the_widest_moment():
  def program(x):  # 4 n bytes each: a; a, b; a, b, c; c
    a = x + 1
    b = jnp.sin(a)
    return a * b

  jaxpr = jax.make_jaxpr(program)(jnp.zeros(N)).jaxpr
  assert costs.live(jaxpr) == 3 * 4 * N
  chain = lambda x: jnp.sin(jnp.sin(jnp.sin(x)))
  assert costs.live(jax.make_jaxpr(chain)(jnp.zeros(N)).jaxpr) == 2 * 4 * N
  assert costs.live(jax.make_jaxpr(chain)(jnp.zeros(N)).jaxpr, donated=True) == 2 * 4 * N
  called = jax.make_jaxpr(lambda x: jax.jit(program)(x) + 1)(jnp.zeros(N)).jaxpr
  assert costs.live(called) == 3 * 4 * N


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
