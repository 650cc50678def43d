"""Layers with torch's semantics, for networks whose published weights must mean the same here.

Letters: B images, N samples per image, H x W pixels, C channels. Where a layer takes
[B, N, H, W, C], an N of 1 stands for features that all samples share.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from car_jax.errors import UserError
from car_jax.nn.convolution import convolve, rows_product
from car_jax.nn.init import torch_uniform
from car_jax.typing import Array

Axes = tuple[int, ...]
_RECOMPUTED = contextvars.ContextVar('recomputed', default=False)


@contextlib.contextmanager
def recomputing() -> Iterator[None]:
  """While a net is traced inside, `through` keeps for the gradient what goes into a block alone."""
  token = _RECOMPUTED.set(True)
  try:
    yield
  finally:
    _RECOMPUTED.reset(token)


def through(block: nn.Module, *inputs: Any, **kw: Any) -> Array:
  """block(*inputs, **kw), a part of a net that may be computed again for the gradient: each on its
  own, when its gradient arrives, so that the insides of one exist at a time. Inputs are arrays."""
  return part(lambda block, *inputs: block(*inputs, **kw), block, *inputs)


def part(function: Callable, net: nn.Module, *inputs: Any) -> Array:
  """function(net, *inputs), as `through` has it, where it is no module of its own."""
  run = nn.remat(function) if _RECOMPUTED.get() else function
  return run(net, *inputs)


def own_array(x: Array) -> Array:
  """x. On a CPU it is an array in memory: XLA would fuse a sum of residuals into all that reads it,
  so that each block of a ResNet adds up those of all blocks before it once more.

  Only what XLA counts as expensive and cannot simplify is left where it is, such as this division
  by one; a barrier is taken out before programs are fused.
  """

  def divided(x: Array) -> Array:
    return x / jnp.where(jax.lax.stop_gradient(x == x), 1, jnp.nan).astype(x.dtype)

  return jax.lax.platform_dependent(x, cpu=divided, default=lambda x: x)


def check_divides(parts: int, width: int, what: str) -> None:
  """Raises UserError, naming the nearest valid width, unless `width` is a multiple of `parts`."""
  if width % parts:
    near = max(1, round(width / parts)) * parts
    raise UserError(f'{what}: {width} is no multiple of {parts}; nearest {near}')


def at_least_float32(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_two_classes(option: str, num_classes: int) -> None:
  """Raises UserError for an option, such as method.one_logit, that is of two classes alone."""
  if num_classes != 2:
    raise UserError(
      f'{option} is of two classes, the data have {num_classes}\n  set {option}=False'
    )


def of_two(logit: Array, axis: int = -1) -> Array:
  """A logit of the second of two classes -> logits of both along `axis`, whose length is 1 before:
  softmax gives its sigmoid."""
  return jnp.concatenate([jnp.zeros_like(logit), logit], axis)


class BatchNorm(nn.Module):
  """Batch norm as torch's: x [B, H, W, C] or [B, N, H, W, C] -> the same shape.

  Differs from linen's in that the running variance is the unbiased one. With a sample axis, each
  sample n is normalised by its own statistics over (B, H, W), and the running ones are updated N
  times in order, as N calls one after the other would do. `updates` > 1 on shared features (N = 1)
  counts the same statistics that many times. batch_stats: mean, var, count (updates so far).
  """

  epsilon: float = 1e-5
  momentum: float = 0.1  # torch's: the share of the new statistics in the running ones

  @nn.compact
  def __call__(self, x: Array, *, train: bool, updates: int = 1) -> Array:
    c = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (c,))
    bias = self.param('bias', nn.initializers.zeros, (c,))
    mean = self.variable('batch_stats', 'mean', jnp.zeros, (c,))
    var = self.variable('batch_stats', 'var', jnp.ones, (c,))
    count = self.variable('batch_stats', 'count', jnp.zeros, (), jnp.int32)
    if not train:
      gain = scale * jax.lax.rsqrt(var.value + self.epsilon)
      return (x * gain + (bias - mean.value * gain)).astype(x.dtype)
    axes = (0, 2, 3) if x.ndim == 5 else (0, 1, 2)
    y, m, v = _normalised(at_least_float32(x), mean.value, scale, bias, axes, self.epsilon, 0)
    if not self.is_initializing():
      seen = x.size // v.size
      unbiased = v * (seen / max(seen - 1, 1))
      n = v.size // c
      if n > 1:
        updates = n
      mean.value = _fold(mean.value, m.reshape(n, c), updates, self.momentum)
      var.value = _fold(var.value, unbiased.reshape(n, c), updates, self.momentum)
      count.value = count.value + updates
    return y.astype(x.dtype)


class GroupNorm(nn.Module):
  """Group norm (Wu & He, ECCV 2018): x [B, .., C] -> the same shape, each image and group of
  channels by its own statistics.

  linen's makes an axis of a group's channels, often one to four: slow on a CPU.
  """

  groups: int
  epsilon: float = 1e-5
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = x.shape[-1]
    scale = self.param('scale', nn.initializers.ones, (c,))
    bias = self.param('bias', nn.initializers.zeros, (c,))
    axes, wide = tuple(range(1, x.ndim - 1)), at_least_float32(x)
    y = _normalised(wide, None, scale, bias, axes, self.epsilon, self.groups)[0]
    return y if self.dtype is None else y.astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _normalised(
  x: Array, near: Array | None, scale: Array, bias: Array, axes: Axes, epsilon: float, groups: int
) -> tuple[Array, Array, Array]:
  """x by its statistics over `axes` and over channels in `groups` of them, or 0 for each on its
  own, scaled and shifted; and these, which have no gradient: mean and variance, with axes of length
  1. near [C]: a guess of the mean, which changes rounding alone; None for none.

  The gradient is written out: it takes two passes over x, derived it took four.
  """
  return _normalise(x, near, scale, bias, axes, epsilon, groups)[0]


def _shared(x: Array, groups: int) -> Array:
  """[.., C] -> the mean of each group of channels, at all of them; with 0 groups x."""
  if not groups:
    return x
  grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
  return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(x.shape)


def _two_passes(axes: Axes, groups: int, x: Array) -> tuple[Array, Array]:
  """Mean and variance; the second begins when devices have agreed on the first."""
  mean = _shared(jnp.mean(x, axes, keepdims=True), groups)
  return mean, _shared(jnp.mean(jnp.square(x - mean), axes, keepdims=True), groups)


def _one_pass(axes: Axes, x: Array, near: Array) -> tuple[Array, Array]:
  """The same from sums that need not wait for each other: half the exchanges between devices.

  Squares of what is left beside `near` lose few digits where that is a running mean.
  """
  beside = x - near
  first = jnp.mean(beside, axes, keepdims=True)
  second = jnp.mean(jnp.square(beside), axes, keepdims=True)
  return near + first, jnp.maximum(second - jnp.square(first), 0)


def _normalise(x, near, scale, bias, axes, epsilon, groups):
  two = lambda x, *_: _two_passes(axes, groups, x)
  if near is None:
    mean, var = two(x)
  else:
    one = functools.partial(_one_pass, axes)
    mean, var = jax.lax.platform_dependent(x, near, tpu=one, default=two)
  inverse = jax.lax.rsqrt(var + epsilon)
  return ((x - mean) * (inverse * scale) + bias, mean, var), (x, near, scale, mean, inverse)


def _normalise_gradient(axes, epsilon, groups, kept, gradients):
  x, near, scale, mean, inverse = kept
  dy = gradients[0]
  centred = (x - mean) * inverse
  shift, slope = (jnp.sum(d, axes, keepdims=True) for d in (dy, dy * centred))
  count = x.size // shift.size
  # A group's channels have scales of their own, to be taken before their gradients are averaged.
  gain, weight = (inverse, scale) if groups else (inverse * scale, 1)
  level, tilt = (_shared(weight * d, groups) / count for d in (shift, slope))
  dx = gain * (weight * dy - level - centred * tilt)
  total = lambda d: jnp.sum(d, range(d.ndim - 1))
  return dx, jax.tree.map(jnp.zeros_like, near), total(slope), total(shift)


_normalised.defvjp(_normalise, _normalise_gradient)


def _fold(running: Array, new: Array, updates: int, momentum: float) -> Array:
  """running [C] after `updates` updates by the rows of new [n, C] in order (or by its only row)."""
  new = jax.lax.stop_gradient(new)
  keep = 1 - momentum
  if len(new) == 1:
    return keep**updates * running + (1 - keep**updates) * new[0]
  weights = momentum * keep ** jnp.arange(updates - 1, -1, -1, dtype=new.dtype)
  return keep**updates * running + weights @ new


class ConvTranspose2x2(nn.Module):
  """Transposed convolution, kernel 2, stride 2: [..., H, W, C] -> [..., 2H, 2W, features].

  Each input pixel becomes a 2 x 2 block by one matrix product. Inputs given as a sequence count as
  concatenated along C; a shared one (N = 1) is multiplied once for all samples.
  """

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, *inputs: Array) -> Array:
    widths = [x.shape[-1] for x in inputs]
    shape = (2, 2, sum(widths), self.features)
    kernel = self.param('transposed_kernel', torch_uniform(4 * self.features), shape)
    bias = self.param('bias', torch_uniform(4 * self.features), (self.features,))
    *parts, kernel, bias = nn.dtypes.promote_dtype(*inputs, kernel, bias, dtype=self.dtype)
    kernel = kernel.transpose(2, 0, 1, 3)  # so einsum gives [pixels, channels], not across
    start, blocks = 0, bias
    for x, width in zip(parts, widths, strict=True):
      weights = kernel[start : start + width]
      blocks = blocks + jnp.einsum('...hwc,cabo->...hwabo', x, weights)
      start += width
    blocks = blocks.swapaxes(-4, -3)
    *lead, h, _, w, _, o = blocks.shape
    return blocks.reshape(*lead, 2 * h, 2 * w, o)


def conv(
  features: int, size: int = 3, stride: int = 1, padding: int | str = 1, **kw: Any
) -> nn.Conv:
  """A convolution with torch's way of giving padding: zeros, the same number on every side.

  Or 'SAME', TensorFlow's way, where a stride of 2 pads an even side at its end alone; or 'REFLECT':
  the image mirrored about its border pixels, for an odd size and a stride of one.
  """
  convolution = _pointwise if size == 1 and padding == 0 else convolve
  if padding == 'REFLECT':
    convolution, padding = _mirrored, size // 2
  pads = padding if isinstance(padding, str) else ((padding, padding),) * 2
  kw = {'conv_general_dilated': convolution} | kw
  return nn.Conv(features, (size, size), (stride, stride), pads, **kw)


def _pointwise(x: Array, kernel: Array, strides: Any, *args: Any, **kw: Any) -> Array:
  """lax.conv_general_dilated of a 1 x 1 kernel as a matrix product.

  On a CPU a convolution's gradient for such a kernel takes two to three times as long.
  """
  sized = strides[0] > 1 and any(map(is_symbolic_dim, x.shape[1:3]))  # as other strides are
  if sized or kw.get('feature_group_count', 1) != 1:
    return jax.lax.conv_general_dilated(x, kernel, strides, *args, **kw)
  return rows_product(x[:, :: strides[0], :: strides[1]], kernel[0, 0], **kw)


def _mirrored(x: Array, kernel: Array, strides: Any, padding: Any, **kw: Any) -> Array:
  """`convolve` of an image mirrored about its border pixels, `padding` wide.

  A CPU is twice as fast at a convolution that pads by itself, so there the mirrored image is padded
  once more and the border, which zeros have touched, cut off.
  """
  by = padding[0][0]

  def padded_again(x, kernel):
    y = convolve(x, kernel, strides, padding, **kw)
    return y[:, by:-by, by:-by]

  def plain(x, kernel):
    return convolve(x, kernel, strides, 'VALID', **kw)

  return jax.lax.platform_dependent(reflect_pad(x, by), kernel, cpu=padded_again, default=plain)


def dense(features: int, **kw: Any) -> nn.Dense:
  """A linear layer of the last axis, for inputs of many rows: see `rows_product`."""
  return nn.Dense(features, dot_general=rows_product, **kw)


class NormedConv(nn.Module):
  """A convolution, a batch norm, an activation: [B, H, W, channels] -> [B, H, W, features].

  `depthwise` filters each channel alone. A bias before a norm changes nothing but what weight files
  hold: VGG's have one. Without a stride H and W stay; `same` is about padding with one, see `conv`.
  """

  features: int
  size: int = 1
  dilation: int = 1
  depthwise: bool = False
  dtype: Any = None
  use_bias: bool = False
  stride: int = 1
  activation: Any = nn.relu  # a function of arrays, or None for none
  epsilon: float = 1e-5  # of the norm
  same: bool = False

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    groups = x.shape[-1] if self.depthwise else 1
    kw = {'kernel_dilation': self.dilation, 'feature_group_count': groups, 'dtype': self.dtype}
    pad = 'SAME' if self.same else self.dilation * (self.size // 2)
    shape = self.features, self.size, self.stride, pad
    x = conv(*shape, use_bias=self.use_bias, name='conv', **kw)(x)
    x = BatchNorm(self.epsilon, name='norm')(x, train=train)
    return x if self.activation is None else self.activation(x)


def layer_norm(name: str, epsilon: float, dtype: Any) -> nn.LayerNorm:
  """As torch computes it: the variance about the mean, not from squares."""
  return nn.LayerNorm(epsilon, dtype=dtype, use_fast_variance=False, name=name)


def reflect_pad(x: Array, by: int = 1) -> Array:
  """[B, H, W, C] mirrored about its border pixels (the border itself is not repeated)."""
  return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), mode='reflect')


def max_pool2(x: Array) -> Array:
  """[B, H, W, C] -> [B, H/2, W/2, C]; of equal values the first has the gradient, as in torch.

  Selections, for the reason that `clamp` gives; and on a CPU they are differentiated five times as
  fast as nn.max_pool.
  """
  b, h, w, c = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, c)
  larger = lambda one, two: jnp.where(one < two, two, one)
  upper, lower = (larger(x[:, :, i, :, 0], x[:, :, i, :, 1]) for i in (0, 1))
  return larger(upper, lower)


def max_pool3(x: Array, *, ceil: bool = False, border: float = -jnp.inf) -> Array:
  """[B, H, W, C] -> the maxima of 3 x 3 windows two apart, padded by one; selections as max_pool2.

  H becomes ceil(H / 2), or with `ceil`, for an even H, one more: as torch's ceil_mode, whose last
  window lies half outside. `border` is the value of the padding.
  """
  larger = lambda one, two: jnp.where(one < two, two, one)
  for axis in (2, 1):  # rows last: of equal values the first row's has the gradient
    side = x.shape[axis]
    count = side // 2 + 1 if ceil else (side + 1) // 2
    pads = [(1, 2 * count - side) if a == axis else (0, 0) for a in range(4)]
    padded = jnp.pad(x, pads, constant_values=border)
    every = lambda start: jax.lax.slice_in_dim(padded, start, start + 2 * count - 1, 2, axis)  # noqa: B023
    x = larger(larger(every(0), every(1)), every(2))
  return x


def check_multiple(shape: tuple[int, ...], of: int, what: str) -> None:
  """Raises UserError, naming the nearest valid size, unless H and W are multiples of `of`."""
  h, w = shape[1:3]
  if h % of or w % of or not h or not w:
    near = [max(of, round(s / of) * of) for s in (h, w)]
    raise UserError(
      f'{what} takes images whose sides are multiples of {of}, not {h}x{w}; '
      f'nearest {near[0]}x{near[1]}'
    )
