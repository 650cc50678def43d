"""Convolutions and products in forms that suit CPUs: depthwise ones, and gradients of kernels.

XLA takes the gradient of a kernel as a convolution by one as large as the image, whose operands its
CPU backend gathers number by number: that takes two to ten times as long as the convolution. Here
it is a product of two matrices.

Letters: B images, H x W pixels, R rows, C channels in, D out, an I x J kernel.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from car_jax.typing import Array

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
MOST_UNROLLED = 9  # places of a kernel; 49 take six times as long to compile as a loop does
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

  Or by a depthwise one [I, J, 1, C], with as many groups as channels. It and its gradients are
  XLA's on every platform with other groups, with a stride that does not divide the kernel, and with
  sizes that are symbols; of depthwise ones with strides and such sizes.
  """
  strides, dilation = tuple(strides), tuple(rhs_dilation or (1, 1))
  sized = all(isinstance(side, int) for side in x.shape)
  if 1 < feature_group_count == x.shape[-1] == kernel.shape[-1]:
    ours = sized or (max(strides) == 1 and not isinstance(padding, str))
  else:
    sides = zip(kernel.shape[:2], strides, dilation, strict=True)
    strides_divide = all(s == 1 or (side % s == 0 and d == 1) for side, s, d in sides)
    ours = sized and feature_group_count == 1 and strides_divide
  if not ours or set(lhs_dilation or (1,)) != {1}:
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
  groups = x.shape[-1] // kernel.shape[2]
  by_compiler = lambda x, kernel: jax.lax.conv_general_dilated(
    x, kernel, strides, pads, None, dilation, LAYOUT, groups, precision=precision
  )
  if groups == 1:
    return by_compiler(x, kernel)
  by_places = functools.partial(_by_places, strides, pads, dilation)
  return jax.lax.platform_dependent(x, kernel, cpu=by_places, default=by_compiler)


def _convolve_tangent(strides, pads, dilation, precision, primals, tangents):
  convolution = functools.partial(_convolve, strides, pads, dilation, precision)
  if primals[0].shape[-1] == primals[1].shape[2]:
    by_kernel = functools.partial(_by_products, strides, pads, dilation, precision)
  else:
    by_kernel = functools.partial(_by_places, strides, pads, dilation)
  # A checkpoint, so that its copies are made when the gradient arrives.
  return convolution(*primals), _tangent(convolution, jax.checkpoint(by_kernel), primals, tangents)


_convolve.defjvp(_convolve_tangent, symbolic_zeros=True)


def _tangent(bilinear: Callable, by_kernel: Callable, primals, tangents) -> Array:
  """Of bilinear(x, kernel). by_kernel: the same on CPUs where it is the kernel that changes; a
  gradient asks for its transpose alone."""
  (x, kernel), (dx, dkernel) = primals, tangents
  terms = []
  if not isinstance(dx, SymbolicZero):
    terms.append(bilinear(dx, kernel))
  if not isinstance(dkernel, SymbolicZero):
    terms.append(jax.lax.platform_dependent(x, dkernel, cpu=by_kernel, default=bilinear))
  return sum(terms)


def _by_places(strides, pads, dilation, x: Array, kernel: Array) -> Array:
  """A depthwise convolution as a sum over the kernel's places, each times the pixels that it sees.

  XLA's form for a CPU takes up to thirty times as long, and its kernel's gradient is that of all
  C x C pairs of channels, of which it keeps C.
  """
  (i, j, _, c), wide = kernel.shape, jnp.promote_types(x.dtype, jnp.float32)
  x, weights = _padded(x, pads), kernel.reshape(-1, c).astype(wide)
  places = np.array([*np.ndindex(i, j)], np.int32) * np.array(dilation, np.int32)
  spans = [side - (n - 1) * d for side, n, d in zip(x.shape[1:3], (i, j), dilation, strict=True)]
  (h, w), (s, t) = spans, strides

  def product(place, weight):
    seen = jax.lax.dynamic_slice(x, (0, *place, 0), (x.shape[0], h, w, c))
    return seen[:, ::s, ::t].astype(wide) * weight

  if i * j > MOST_UNROLLED:
    zeros = jnp.zeros((x.shape[0], -(-h // s), -(-w // t), c), wide)
    y, _ = jax.lax.scan(lambda y, at: (y + product(*at), None), zeros, (places, weights))
  else:
    seen = (x[:, row : row + h : s, column : column + w : t] for row, column in places)
    y = sum(pixels.astype(wide) * weight for pixels, weight in zip(seen, weights, strict=True))
  return y.astype(x.dtype)


def _by_products(strides, pads, dilation, precision, x: Array, kernel: Array) -> Array:
  """The convolution by one product of matrices, so that the kernel's gradient is one too.

  The kernel has a weight for each of I x J shifts of x against y. Some shifts are made of x, as
  more columns of the product, and the others of y, as more results, whichever copies less: for a
  3 x 3 kernel from 64 to 64 channels three of each, where x alone would need nine.
  """
  if max(strides) > 1:
    x, kernel, pads = _without_strides(strides, pads, x, kernel)
  i, j, c, d = kernel.shape
  copies = lambda shifts, width: shifts * width if shifts > 1 else 0  # numbers of a pixel
  cost = lambda n: copies(n[0] * n[1], c) + copies(i * j // (n[0] * n[1]), d)
  of_x = min([(i, 1), (1, j), (i, j), (1, 1)], key=cost)
  of_y = i // of_x[0], j // of_x[1]
  shift = functools.partial(_shifted, pads=pads, steps=dilation)
  columns = jnp.concatenate([shift(x, at, of_x) for at in np.ndindex(of_x)], -1)
  columns = jax.lax.optimization_barrier(columns)  # an array, else gathered for each result
  weights = kernel.reshape(of_x[0], of_y[0], of_x[1], of_y[1], c, d).transpose(0, 2, 4, 1, 3, 5)
  rows = columns.reshape(-1, columns.shape[-1])
  y = _narrow_first(precision, rows, weights.reshape(rows.shape[-1], -1))
  parts = jnp.split(y.reshape(*columns.shape[:-1], -1), of_y[0] * of_y[1], -1)
  return sum(shift(part, at, of_y) for part, at in zip(parts, np.ndindex(of_y), strict=True))


def _shifted(x: Array, at: Pair, counts: Pair, pads: Sequence[Pair], steps: Pair) -> Array:
  """x [B, H, W, ..], padded and shifted by `at` steps along the axes that have several shifts."""
  sides = [
    (lo - k * step, hi - (n - 1 - k) * step) if n > 1 else (0, 0)
    for k, n, (lo, hi), step in zip(at, counts, pads, steps, strict=True)
  ]
  return _padded(x, sides)


def _padded(x: Array, sides: Sequence[Pair]) -> Array:
  """x [B, H, W, ..] with so many zeros before and after H and W; less than none cuts pixels off."""
  edges = [(0, 0, 0), *((lo, hi, 0) for lo, hi in sides), (0, 0, 0)]
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


def _without_strides(strides, pads, x: Array, kernel: Array) -> tuple[Array, Array, Sequence[Pair]]:
  """A convolution with strides that divide its kernel -> x, kernel and padding of one without:
  the pixels of a stride's block are channels of one pixel."""
  (s, t), (i, j, c, d) = strides, kernel.shape
  padding = [  # at the end less than none where no kernel reaches
    (lo, hi - (side + lo + hi - size) % stride)
    for side, size, stride, (lo, hi) in zip(x.shape[1:3], (i, j), strides, pads, strict=True)
  ]
  x = _padded(x, padding)
  b, h, w, _ = x.shape
  x = x.reshape(b, h // s, s, w // t, t, c).transpose(0, 1, 3, 2, 4, 5)
  kernel = kernel.reshape(i // s, s, j // t, t, c, d).transpose(0, 2, 1, 3, 4, 5)
  x, kernel = x.reshape(b, h // s, w // t, -1), kernel.reshape(i // s, j // t, -1, d)
  return x, kernel, ((0, 0), (0, 0))


def rows_product(
  x: Array, kernel: Array, dimension_numbers: Any = None, *, precision: Any = None, **kw: Any
) -> Array:
  """x [..., C] times kernel [C, D] -> [..., D], as one product of two matrices."""
  rows = _rows_product(precision, x.reshape(-1, x.shape[-1]), kernel)
  return rows.reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _rows_product(precision, rows: Array, kernel: Array) -> Array:
  return jnp.dot(rows, kernel, precision=precision)


def _rows_product_tangent(precision, primals, tangents):
  """On a CPU the barrier keeps the gradient that arrives there an array: fused into the products it
  is gathered column by column, which took a fifth of ResNet-101's step and a third of MoSE's."""
  product = functools.partial(_rows_product, precision)
  tangent = _tangent(product, functools.partial(_narrow_first, precision), primals, tangents)
  barrier = jax.lax.optimization_barrier
  return product(*primals), jax.lax.platform_dependent(tangent, cpu=barrier, default=lambda t: t)


_rows_product.defjvp(_rows_product_tangent, symbolic_zeros=True)


def _narrow_first(precision, rows: Array, kernel: Array) -> Array:
  """rows [R, C] times kernel [C, D], whose gradient by the kernel is a product over the rows with
  the narrower of the two on the left: up to 1.6 times as fast."""
  if kernel.shape[0] <= kernel.shape[1]:
    return jnp.dot(rows, kernel, precision=precision)
  transposed = jax.lax.optimization_barrier(kernel.T)
  return jax.lax.dot_general(rows, transposed, (((1,), (1,)), ((), ())), precision=precision)
