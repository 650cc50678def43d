"""The convolution: it and its gradients against sums over places in float64, of every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn.convolution import convolve, rows_product

# H, W, C, D, side of the kernel, stride, padding, dilation. What is copied for a kernel's
# gradient differs: shifts by rows of x and by columns of y, all of x, all of y.
CASES = [
  (9, 11, 8, 8, 3, 1, 1, 1),
  (9, 11, 3, 64, 3, 1, 1, 1),
  (9, 11, 64, 2, 3, 1, 1, 1),
  (8, 10, 4, 5, 4, 1, 1, 1),
  (9, 8, 5, 6, 5, 1, (1, 2), 1),
  (9, 11, 8, 8, 3, 1, 2, 2),
  (5, 6, 4, 4, 3, 1, 6, 6),
  (13, 11, 4, 8, 4, 2, 1, 1),
  (9, 11, 5, 6, 2, 2, 0, 1),
  (7, 8, 4, 4, 3, 2, 1, 1),
]


def setting(h, w, c, d, size, stride, padding, dilation):
  rng = np.random.default_rng(0)
  pad = padding if isinstance(padding, tuple) else (padding, padding)
  x, kernel = rng.normal(size=(2, h, w, c)), rng.normal(size=(size, size, c, d))
  run = lambda x, kernel: convolve(x, kernel, (stride,) * 2, (pad,) * 2, None, (dilation,) * 2)
  places = [(p + sum(pad) - (size - 1) * dilation - 1) // stride + 1 for p in (h, w)]
  windows = [
    (i, j, slice(i * dilation, i * dilation + (places[0] - 1) * stride + 1, stride),
     slice(j * dilation, j * dilation + (places[1] - 1) * stride + 1, stride))
    for i in range(size) for j in range(size)
  ]  # fmt: skip
  return run, x, kernel, rng.normal(size=(2, *places, d)), pad, windows


def summed(x, kernel, pad, windows):
  padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
  return sum(padded[:, rows, columns] @ kernel[i, j] for i, j, rows, columns in windows)


@pytest.mark.parametrize('case', CASES)
def test_a_convolution_and_its_gradients_are_sums_over_places(case):
  run, x, kernel, cotangent, pad, windows = setting(*case)
  y, vjp = jax.vjp(jax.jit(run), np.float32(x), np.float32(kernel))
  np.testing.assert_allclose(y, summed(x, kernel, pad, windows), atol=1e-4)
  padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
  by_x, by_kernel = np.zeros_like(padded), np.zeros_like(kernel)
  for i, j, rows, columns in windows:
    by_x[:, rows, columns] += cotangent @ kernel[i, j].T
    by_kernel[i, j] = np.einsum('bhwc,bhwd->cd', padded[:, rows, columns], cotangent)
  inner = np.s_[:, pad[0] : pad[0] + x.shape[1], pad[0] : pad[0] + x.shape[2]]
  grad_x, grad_kernel = vjp(np.float32(cotangent))
  np.testing.assert_allclose(grad_x, by_x[inner], atol=1e-4)
  np.testing.assert_allclose(grad_kernel, by_kernel, atol=2e-4)


@pytest.mark.parametrize('case', [CASES[0], CASES[2], CASES[7]])
def test_derivatives_of_derivatives_are_those_of_a_quadratic(case):
  """A convolution is linear in x and in the kernel: q = |y|^2 has known second derivatives."""
  run, x, kernel, _, pad, windows = setting(*case)
  rng = np.random.default_rng(1)
  dx, dkernel = rng.normal(size=x.shape), rng.normal(size=kernel.shape)
  inputs = [np.float32(a) for a in (x, kernel, dx, dkernel)]
  q = lambda x, kernel: 0.5 * jnp.sum(run(x, kernel) ** 2)
  both = (0, 1)

  @jax.jit
  def derivatives(x, kernel, dx, dkernel):
    forward = jax.jvp(run, (x, kernel), (dx, dkernel))[1]
    along = lambda x, kernel: jax.jvp(q, (x, kernel), (dx, dkernel))[1]
    over = jax.jvp(jax.grad(q, both), (x, kernel), (dx, dkernel))[1]
    inner = lambda x, kernel: sum(map(jnp.vdot, jax.grad(q, both)(x, kernel), (dx, dkernel)))
    return forward, jax.grad(along, both)(x, kernel), over, jax.grad(inner, both)(x, kernel)

  forward, *seconds = derivatives(*inputs)
  tangent = summed(dx, kernel, pad, windows) + summed(x, dkernel, pad, windows)
  np.testing.assert_allclose(forward, tangent, atol=2e-4)
  # The same as a function of a single number: q(p + t v) to the second order, and its mixed part.
  y, cross = summed(x, kernel, pad, windows), summed(dx, dkernel, pad, windows)
  want = np.sum(tangent**2) + 2 * np.sum(y * cross)
  for gradient in seconds:
    along = sum(np.vdot(np.float64(a), b) for a, b in zip(gradient, (dx, dkernel), strict=True))
    np.testing.assert_allclose(along, want, rtol=1e-4)
  for other in seconds[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), other, seconds[0]
    )


def test_groups_symbols_and_other_strides_are_left_to_the_compiler():
  x, kernel = jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 1, 4))
  y, vjp = jax.vjp(lambda k: convolve(x, k, (1, 1), 'SAME', feature_group_count=4), kernel)
  assert y[0, 2, 2, 0] == 9
  assert vjp(jnp.ones_like(y))[0][1, 1, 0, 0] == 36
  of = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 4'), jnp.float32)
  run = jax.jit(lambda x: convolve(x, jnp.ones((3, 3, 4, 2)), (1, 1), 'SAME'))
  exported = jax.export.export(run)(of)
  assert exported.call(x)[0, 2, 2, 0] == 36


def test_the_kernels_gradient_is_one_product_on_a_cpu():
  """XLA's own form is a convolution by a kernel as large as the image."""
  if jax.default_backend() != 'cpu':
    pytest.skip('the form of CPUs')
  x, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
  gradient = jax.grad(lambda k: jnp.sum(convolve(x, k, (1, 1), 'SAME') ** 2))
  text = jax.jit(gradient).lower(kernel).as_text()
  assert text.count('stablehlo.convolution') == 1  # that of y
  assert text.count('stablehlo.dot_general') == 1


@pytest.mark.parametrize('width', [3, 20])
def test_a_product_of_rows_and_its_gradients(width):
  rng = np.random.default_rng(0)
  x, kernel, cotangent = (rng.normal(size=s) for s in ((2, 5, 8), (8, width), (2, 5, width)))
  y, vjp = jax.vjp(jax.jit(rows_product), np.float32(x), np.float32(kernel))
  np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
  by_x, by_kernel = vjp(np.float32(cotangent))
  np.testing.assert_allclose(by_x, cotangent @ kernel.T, atol=1e-5)
  np.testing.assert_allclose(by_kernel, np.einsum('bhc,bhd->cd', x, cotangent), atol=1e-5)
  primals = np.float32(x), np.float32(kernel)
  tangent = jax.jvp(rows_product, primals, primals)[1]
  np.testing.assert_allclose(tangent, 2 * x @ kernel, atol=1e-5)
