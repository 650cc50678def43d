"""Convolutions and products whose gradients are, on a CPU, products of two matrices.

XLA takes the gradient of a kernel as a convolution by one as large as the image, whose operands its
CPU backend gathers number by number: that takes two to six times as long as the convolution.

Letters: B images, H x W pixels, R rows, C channels in, D out, an I x J kernel.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from car_jax.typing import Array

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
Pair = tuple[int, int]


def convolve(
  x: Array,
  kernel: Array,
  strides: Sequence[int],
  padding: str | Sequence[Pair],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  *,
  dimension_numbers: Any = LAYOUT,
  feature_group_count: int = 1,
  precision: Any = None,
) -> Array:
  """lax.conv_general_dilated of x [B, H, W, C] by a kernel [I, J, C, D], with its arguments.

  Its gradient is XLA's too with groups, with sizes that are symbols, and with a stride that does
  not divide the kernel.
  """
  strides, dilation = tuple(strides), tuple(rhs_dilation or (1, 1))
  sides = zip(kernel.shape[:2], strides, dilation, strict=True)
  divided = all(s == 1 or (side % s == 0 and d == 1) for side, s, d in sides)
  plain = feature_group_count == 1 and {1} == set(lhs_dilation or (1,))
  if not (divided and plain and all(isinstance(side, int) for side in x.shape)):
    kw = dict(feature_group_count=feature_group_count, precision=precision)
    return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **kw
    )
  if isinstance(padding, str):
    spans = [(side - 1) * d + 1 for side, d in zip(kernel.shape[:2], dilation, strict=True)]
    padding = jax.lax.padtype_to_pads(x.shape[1:3], spans, strides, padding)
  pads = tuple(tuple(map(int, pad)) for pad in padding)
  return _convolve(strides, pads, dilation, precision, x, kernel)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _convolve(strides, pads, dilation, precision, x: Array, kernel: Array) -> Array:
  return jax.lax.conv_general_dilated(
    x, kernel, strides, pads, None, dilation, LAYOUT, precision=precision
  )


def _tangent(strides, pads, dilation, precision, primals, tangents):
  """A gradient asks for the transpose of what is here linear in the kernel; it is not computed."""
  (x, kernel), (dx, dkernel) = primals, tangents
  run = functools.partial(_convolve, strides, pads, dilation, precision)
  terms = []
  if not isinstance(dx, SymbolicZero):
    terms.append(run(dx, kernel))
  if not isinstance(dkernel, SymbolicZero):
    products = functools.partial(_by_products, strides, pads, dilation, precision)
    late = jax.checkpoint(products)  # its copies are made when the gradient arrives
    terms.append(jax.lax.platform_dependent(x, dkernel, cpu=late, default=run))
  return run(x, kernel), sum(terms)


_convolve.defjvp(_tangent, symbolic_zeros=True)


def _by_products(strides, pads, dilation, precision, x: Array, kernel: Array) -> Array:
  """The same by one product of matrices, linear in the kernel, whose gradient is one then too.

  The kernel has a weight for each of I x J shifts of x against y. Some shifts are made of x, as
  more columns of the product, and the others of y, as more results, whichever copies less: for a
  3 x 3 kernel from 64 to 64 channels three of each, where x alone would need nine.
  """
  if max(strides) > 1:
    x, kernel, pads = _phases(strides, pads, x, kernel)
  i, j, c, d = kernel.shape
  copies = lambda shifts, width: shifts * width if shifts > 1 else 0  # numbers of a pixel
  copied = lambda n: copies(n[0] * n[1], c) + copies(i * j // (n[0] * n[1]), d)
  of_x = min([(i, 1), (1, j), (i, j), (1, 1)], key=copied)
  of_y = i // of_x[0], j // of_x[1]
  columns = jnp.concatenate(_shifts([x] * (of_x[0] * of_x[1]), of_x, pads, dilation), -1)
  columns = jax.lax.optimization_barrier(columns)  # an array, else gathered for each result
  weights = kernel.reshape(of_x[0], of_y[0], of_x[1], of_y[1], c, d).transpose(0, 2, 4, 1, 3, 5)
  rows = columns.reshape(-1, columns.shape[-1])
  y = _linear_in_kernel(precision, rows, weights.reshape(rows.shape[-1], -1))
  parts = jnp.split(y.reshape(*columns.shape[:-1], -1), of_y[0] * of_y[1], -1)
  return sum(_shifts(parts, of_y, pads, dilation))


def _shifts(
  arrays: Sequence[Array], counts: Pair, pads: Sequence[Pair], steps: Pair
) -> list[Array]:
  """[B, H, W, ..] for each of counts[0] x counts[1] shifts, row by row -> these, padded and shifted
  along the axes that have more than one."""
  pads = [pad if n > 1 else (0, 0) for pad, n in zip(pads, counts, strict=True)]
  made = []
  for x, at in zip(arrays, itertools.product(*map(range, counts)), strict=True):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    for axis, (start, n, step) in enumerate(zip(at, counts, steps, strict=True), 1):
      length = x.shape[axis] - (n - 1) * step
      x = jax.lax.slice_in_dim(x, start * step, start * step + length, axis=axis)
    made.append(x)
  return made


def _phases(strides, pads, x: Array, kernel: Array) -> tuple[Array, Array, Sequence[Pair]]:
  """A convolution with strides that divide its kernel -> x, kernel and padding of one without:
  the pixels of a stride's block are channels of one pixel."""
  (s, t), (i, j, c, d) = strides, kernel.shape
  cut = [  # of a last part of a block that no kernel reaches
    (lo, hi - (side + lo + hi - size) % stride, 0)
    for side, size, stride, (lo, hi) in zip(x.shape[1:3], (i, j), strides, pads, strict=True)
  ]
  x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *cut, (0, 0, 0)])
  b, h, w, _ = x.shape
  blocks = x.reshape(b, h // s, s, w // t, t, c).transpose(0, 1, 3, 2, 4, 5)
  kernel = kernel.reshape(i // s, s, j // t, t, c, d).transpose(0, 2, 1, 3, 4, 5)
  inner = s * t * c
  return (
    blocks.reshape(b, h // s, w // t, inner),
    kernel.reshape(i // s, j // t, inner, d),
    ((0, 0), (0, 0)),
  )


def rows_product(
  x: Array, kernel: Array, dimension_numbers: Any = None, *, precision: Any = None, **kw: Any
) -> Array:
  """x [..., C] times kernel [C, D] -> [..., D], as one product of two matrices."""
  rows = _rows_product(precision, x.reshape(-1, x.shape[-1]), kernel)
  return rows.reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rows_product(precision, rows: Array, kernel: Array) -> Array:
  return jnp.dot(rows, kernel, precision=precision)


def _rows_tangent(precision, primals, tangents):
  """On a CPU the barrier keeps the gradient that arrives there an array: fused into the products it
  is gathered column by column, which took a fifth of ResNet-101's step and a third of MoSE's."""
  (rows, kernel), (drows, dkernel) = primals, tangents
  run = functools.partial(_rows_product, precision)
  terms = []
  if not isinstance(drows, SymbolicZero):
    terms.append(run(drows, kernel))
  if not isinstance(dkernel, SymbolicZero):
    products = functools.partial(_linear_in_kernel, precision)
    terms.append(jax.lax.platform_dependent(rows, dkernel, cpu=products, default=run))
  barrier = jax.lax.optimization_barrier
  return run(rows, kernel), jax.lax.platform_dependent(
    sum(terms), cpu=barrier, default=lambda tangent: tangent
  )


_rows_product.defjvp(_rows_tangent, symbolic_zeros=True)


def _linear_in_kernel(precision, rows: Array, kernel: Array) -> Array:
  """rows [R, C] times kernel [C, D], whose gradient by the kernel is a product over the rows with
  the narrower of the two on the left: up to 1.6 times as fast."""
  if kernel.shape[0] <= kernel.shape[1]:
    return jnp.dot(rows, kernel, precision=precision)
  turned = jax.lax.optimization_barrier(kernel.T)
  return jax.lax.dot_general(rows, turned, (((1,), (1,)), ((), ())), precision=precision)
