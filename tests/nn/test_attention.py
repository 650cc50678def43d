"""Attention against its definition, whole and in blocks of queries."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn.attention import attention

RNG = np.random.default_rng(0)


def inputs(queries, keys=None, batch=2, heads=3, width=4, size=1):
  shapes = [(batch, n, heads, width) for n in (queries, *[keys or queries] * 2)]
  return [size * RNG.standard_normal(shape) for shape in shapes]


def by_definition(query, key, value):
  asked = np.einsum('bmhd,bnhd->bhmn', query, key) / np.sqrt(query.shape[-1])
  share = np.exp(asked - asked.max(-1, keepdims=True))
  return np.einsum('bhmn,bnhd->bmhd', share / share.sum(-1, keepdims=True), value)


@pytest.mark.parametrize('max_scores', [2**25, 2 * 3 * 7])  # scores of an image; of two queries
@pytest.mark.parametrize('kind', [np.float32, np.float64])
def test_it_is_as_precise_as_its_inputs(kind, max_scores):
  arrays = inputs(5, 7, size=8)
  with jax.enable_x64(kind is np.float64):
    found = attention(*(jnp.asarray(x, kind) for x in arrays), max_scores=max_scores)
  assert found.dtype == kind
  limit = 1e-4 if kind is np.float32 else 1e-12
  np.testing.assert_allclose(found, by_definition(*arrays), rtol=0, atol=limit)


@pytest.mark.parametrize('queries', [1, 4, 5, 7, 20, 21, 64])
def test_blocks_of_any_size(queries):
  arrays = [x.astype(np.float32) for x in inputs(21)]
  found = jax.jit(attention, static_argnames='max_scores')(*arrays, max_scores=queries * 3 * 21)
  np.testing.assert_allclose(found, by_definition(*arrays), atol=2e-6)


def test_blocks_have_the_gradients_of_the_whole_and_hold_less():
  arrays = [x.astype(np.float32) for x in inputs(64, batch=1, heads=1, width=2)]
  programs = {}
  for max_scores in (8 * 64, 64 * 64):
    loss = lambda *x, max_scores=max_scores: jnp.sum(jnp.sin(attention(*x, max_scores=max_scores)))
    programs[max_scores] = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays).compile()
  blocked, whole = programs.values()
  for one, other in zip(blocked(*arrays), whole(*arrays), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-6)
  scratch = lambda program: program.memory_analysis().temp_size_in_bytes
  assert scratch(blocked) < scratch(whole)


def test_sizes_that_a_program_is_told_later():
  arrays = [x.astype(np.float32) for x in inputs(9)]
  (n,) = jax.export.symbolic_shape('n')
  shape = jax.ShapeDtypeStruct((2, n, 3, 4), jnp.float32)
  exported = jax.export.export(jax.jit(attention))(shape, shape, shape)
  np.testing.assert_allclose(exported.call(*arrays), by_definition(*arrays), atol=2e-6)
