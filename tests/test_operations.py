"""What is counted of programs, against programs counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from car_jax import operations

N = 64


def test_a_loop_counts_as_often_as_it_turns():
  once = lambda x: x @ x
  inner = lambda x: jax.lax.scan(lambda c, _: (once(c), None), x, None, length=3)[0]
  outer = lambda x: jax.lax.scan(lambda c, _: (inner(c) + once(c), None), x, None, length=5)[0]
  traced = jax.jit(outer).trace(jax.ShapeDtypeStruct((N, N), jnp.float32))
  plain = operations.analysed(traced)[0]
  whole = plain + sum(operations.repeated(traced.jaxpr.jaxpr))[0]
  products = 5 * (3 + 1)
  assert whole == pytest.approx(products * 2 * N**3, rel=0.02)
  assert plain < whole / 5  # what XLA's analysis says by itself


def test_live_bytes_are_those_of_the_widest_moment():
  def program(x):  # 4 n bytes each: a; a, b; a, b, c; c
    a = x + 1
    b = jnp.sin(a)
    return a * b

  jaxpr = jax.make_jaxpr(program)(jnp.zeros(N)).jaxpr
  assert operations.live(jaxpr) == 3 * 4 * N
  chain = lambda x: jnp.sin(jnp.sin(jnp.sin(x)))
  assert operations.live(jax.make_jaxpr(chain)(jnp.zeros(N)).jaxpr) == 2 * 4 * N
  assert operations.live(jax.make_jaxpr(chain)(jnp.zeros(N)).jaxpr, donated=True) == 2 * 4 * N
  called = jax.make_jaxpr(lambda x: jax.jit(program)(x) + 1)(jnp.zeros(N)).jaxpr
  assert operations.live(called) == 3 * 4 * N


def test_arguments_that_no_result_depends_on_are_not_read():
  def program(a, b, c, d):
    jnp.sin(b)
    return jnp.sin(a), jax.jit(lambda x: x * 2)(c)

  jaxpr = jax.make_jaxpr(program)(*(jnp.zeros(N) for _ in range(4))).jaxpr
  assert operations.read(jaxpr) == [True, False, True, False]


def test_of_forms_for_platforms_a_gpus_are_counted():
  default, cpu = (lambda x: (x @ x).sum()), (lambda x: (jnp.concatenate([x, x, x]) @ x).sum())
  both = lambda x: jax.lax.platform_dependent(x, cpu=cpu, default=default)
  x = jax.ShapeDtypeStruct((N, N), jnp.float32)
  traced, alone, other = (jax.jit(f).trace(x) for f in (both, default, cpu))
  live = lambda traced: operations.live(traced.jaxpr.jaxpr)
  assert operations.work(traced) == pytest.approx(operations.work(alone), rel=0.01)
  assert live(traced) == pytest.approx(live(alone), abs=8)  # and the choice's number
  assert live(other) > 2 * live(alone)


def test_what_only_another_platform_keeps_takes_no_memory():
  safe = lambda x: x / jnp.where(jax.lax.stop_gradient(x == x), 1.0, jnp.nan)
  either = lambda x: jax.lax.platform_dependent(x, cpu=safe, default=lambda x: x)
  x = jax.ShapeDtypeStruct((N, N), jnp.float32)

  def live(between):
    def loss(x):
      for _ in range(4):
        x = jnp.sin(between(x))
      return x.sum()

    return operations.live(jax.jit(jax.grad(loss)).trace(x).jaxpr.jaxpr)

  plain = live(lambda x: x)
  assert live(either) == pytest.approx(plain, rel=0.01)
  assert live(lambda x: x.reshape(-1).reshape(x.shape)) == plain
  assert live(safe) > plain + 4 * x.size
