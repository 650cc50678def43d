"""The convolution: it and its gradients against sums over places in float64, of every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn.convolution import convolve, rows_product

# H, W, C, D, side of the kernel, stride, padding, dilation; D is 0 for channels alone. For a dense
# kernel's gradient shifts are copied by rows of x and by columns of y, or all of x, or all of y.
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
  (9, 12, 5, 6, 1, 2, 0, 1),
  (11, 14, 4, 6, 3, 2, 2, 2),
  (12, 13, 3, 4, 7, 4, 3, 1),
  (9, 11, 5, 0, 3, 1, 1, 1),
  (9, 12, 5, 0, 3, 2, (0, 1), 1),
  (6, 7, 4, 0, 3, 1, 12, 12),
  (9, 8, 4, 0, 7, 1, 3, 1),
]


def setting(h, w, c, d, size, stride, padding, dilation):
  rng = np.random.default_rng(0)
  pad = padding if isinstance(padding, tuple) else (padding, padding)
  x, kernel = rng.normal(size=(2, h, w, c)), rng.normal(size=(size, size, c if d else 1, d or c))
  grid, groups = ((stride,) * 2, (pad,) * 2, None, (dilation,) * 2), 1 if d else c
  run = lambda x, kernel: convolve(x, kernel, *grid, feature_group_count=groups)
  places = [(p + sum(pad) - (size - 1) * dilation - 1) // stride + 1 for p in (h, w)]
  windows = [
    (i, j, slice(i * dilation, i * dilation + (places[0] - 1) * stride + 1, stride),
     slice(j * dilation, j * dilation + (places[1] - 1) * stride + 1, stride))
    for i in range(size) for j in range(size)
  ]  # fmt: skip
  return run, x, kernel, rng.normal(size=(2, *places, d or c)), pad, windows


def dense(x, kernel):
  """A kernel of each channel alone as one that has zeros for the others."""
  return kernel if kernel.shape[2] == x.shape[-1] else kernel * np.eye(x.shape[-1])


def summed(x, kernel, pad, windows):
  padded, kernel = np.pad(x, ((0, 0), pad, pad, (0, 0))), dense(x, kernel)
  return sum(padded[:, rows, columns] @ kernel[i, j] for i, j, rows, columns in windows)


@pytest.mark.parametrize('case', CASES)
def test_a_convolution_and_its_gradients_are_sums_over_places(case):
  run, x, kernel, cotangent, pad, windows = setting(*case)
  y, vjp = jax.vjp(jax.jit(run), np.float32(x), np.float32(kernel))
  np.testing.assert_allclose(y, summed(x, kernel, pad, windows), atol=1e-4)
  padded = np.pad(x, ((0, 0), pad, pad, (0, 0)))
  by_x, by_kernel = np.zeros_like(padded), np.zeros_like(dense(x, kernel))
  for i, j, rows, columns in windows:
    by_x[:, rows, columns] += cotangent @ dense(x, kernel)[i, j].T
    by_kernel[i, j] = np.einsum('bhwc,bhwd->cd', padded[:, rows, columns], cotangent)
  inner = np.s_[:, pad[0] : pad[0] + x.shape[1], pad[0] : pad[0] + x.shape[2]]
  if kernel.shape[2] < x.shape[-1]:
    by_kernel = np.einsum('ijcc->ijc', by_kernel)[:, :, None]
  grad_x, grad_kernel = vjp(np.float32(cotangent))
  np.testing.assert_allclose(grad_x, by_x[inner], atol=1e-4)
  np.testing.assert_allclose(grad_kernel, by_kernel, atol=2e-4)


@pytest.mark.parametrize('case', [CASES[k] for k in (0, 2, 7, 9, 13)])
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


def test_groups_and_symbols_are_left_to_the_compiler():
  x, kernel = jnp.ones((1, 6, 6, 4)), jnp.ones((3, 3, 2, 4))
  y, vjp = jax.vjp(lambda k: convolve(x, k, (1, 1), 'SAME', feature_group_count=2), kernel)
  assert y[0, 2, 2, 0] == 18
  assert vjp(jnp.ones_like(y))[0][1, 1, 0, 0] == 36
  assert exported(x, jnp.ones((3, 3, 4, 2)), (1, 1), 'SAME')[0, 2, 2, 0] == 36


def exported(x, kernel, *args, **kw):
  """The convolution of x by a program of images of any size."""
  of = jax.ShapeDtypeStruct(jax.export.symbolic_shape('b, h, w, 4'), jnp.float32)
  return jax.export.export(jax.jit(lambda x: convolve(x, kernel, *args, **kw)))(of).call(x)


def test_of_images_of_any_size_channels_alone():
  rng = np.random.default_rng(0)
  x, kernel = (jnp.asarray(rng.normal(size=s), 'f4') for s in ((2, 7, 8, 4), (3, 3, 1, 4)))
  how = (1, 1), ((1, 1), (1, 1))
  sized = convolve(x, kernel, *how, feature_group_count=4)
  np.testing.assert_allclose(exported(x, kernel, *how, feature_group_count=4), sized, atol=1e-6)


def test_sums_of_narrow_numbers_are_wide():
  """Nine bfloat16 products that would each be rounded on the way."""
  x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
  kernel = jnp.full((3, 3, 1, 2), 1 / 256, jnp.bfloat16).at[0, 0].set(1)
  y = convolve(x, kernel, (1, 1), 'VALID', feature_group_count=2)
  assert y.dtype == jnp.bfloat16
  assert y[0, 0, 0, 0] == jnp.bfloat16(1 + 8 / 256)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='the form of CPUs')
def test_what_cpus_compute():
  """XLA takes a kernel's gradient as a convolution by a kernel as large as the image, and that of
  channels alone for all pairs of channels."""
  x, kernel = jnp.ones((2, 16, 16, 8)), jnp.ones((3, 3, 8, 8))
  gradient = jax.grad(lambda k: jnp.sum(convolve(x, k, (1, 1), 'SAME') ** 2))
  text = jax.jit(gradient).lower(kernel).as_text()
  assert text.count('stablehlo.convolution') == 1  # that of y
  assert text.count('stablehlo.dot_general') == 1
  alone = lambda x, k: jnp.sum(convolve(x, k, (1, 1), 'SAME', feature_group_count=8) ** 2)
  text = jax.jit(jax.grad(alone, (0, 1))).lower(x, kernel[:, :, :1]).as_text()
  assert 'stablehlo.convolution' not in text


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
