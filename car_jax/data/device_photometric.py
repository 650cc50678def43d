"""The noise of data/photometric.py on an accelerator. Letters: H x W pixels.

Given the same draws, blur, brightness, contrast and saturation are Pillow's but for a level here
and there; a hue halfway between two of Pillow's 256 may be the other one, at most 6 levels away.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from car_jax.data import photometric
from car_jax.data.photometric import CONTRAST, HUE, SATURATION, Noise

Array = jax.Array
LUMA = (19595, 38470, 7471)  # 16-bit shares of red, green and blue


def uniform(rng: Array, between: Sequence[float], shape: tuple[int, ...] = ()) -> Array:
  return jax.random.uniform(rng, shape, minval=between[0], maxval=between[1])


def noise(
  rng: Array, *, blur=(0.1, 2.0), jitter: float = 0.4, hue=photometric.TARGET_HUE, greyscale=0.2
) -> Noise:
  """As photometric.noise draws it."""
  blurring, whether, ordering, by, greying = jax.random.split(rng, 5)
  spread = jnp.array([jitter, jitter, jitter, min(hue, jitter)])
  return Noise(
    radius=uniform(blurring, blur) if blur else jnp.zeros(()),
    jittered=(jitter > 0) & jax.random.bernoulli(whether),
    order=jax.random.permutation(ordering, 4),
    factors=jnp.array([1, 1, 1, 0]) + spread * uniform(by, (-1, 1), (4,)),
    grey=jax.random.bernoulli(greying, greyscale),
  )


def source_noise(rng: Array, *, jitter: float, blur: bool) -> Noise:
  """As photometric.source_noise draws it."""
  rest, blurring = jax.random.split(rng)
  drawn = noise(rest, blur=(), jitter=jitter, hue=photometric.SOURCE_HUE, greyscale=0.0)
  return drawn._replace(radius=photometric.SOURCE_BLUR * (blur & jax.random.bernoulli(blurring)))


def blurred(planes: Array, radius: Array, *, most: float, extent: Array | None = None) -> Array:
  """uint8 [3, H, W] -> uint8, by a Gaussian of `radius` of up to `most`; see photometric.

  Where the image ends before its array does, `extent` is its height and width.
  """
  reach = int(photometric.box_radius(most)) + 1
  box = photometric.box_radius(radius)
  # Pillow's fixed point, which rounds most halves down: with six passes that is visible.
  full = (2**24 / (2 * box + 1)).astype(jnp.uint32)
  edge = (2**24 - (2 * box.astype(jnp.uint32) + 1) * full) // 2
  taps = jnp.arange(reach + 1)
  weights = jnp.where(taps <= box, full, jnp.where(taps <= box + 1, edge, 0))

  def box_blurred(x: Array, axis: int) -> Array:
    n = x.shape[axis]
    if extent is not None:
      x = jnp.take(x, jnp.minimum(jnp.arange(n), extent[axis - 1] - 1), axis)
    ends = (jax.lax.slice_in_dim(x, k, k + 1, axis=axis) for k in (0, n - 1))
    low, high = ([end] * reach for end in ends)
    # The barrier keeps the six passes from being fused into one of 5^6 taps.
    wide = jax.lax.optimization_barrier(jnp.concatenate([*low, x, *high], axis))

    def tap(k: int) -> Array:
      return jax.lax.slice_in_dim(wide, reach + k, reach + k + n, axis=axis).astype(jnp.uint32)

    out = tap(0) * weights[0]
    for k in range(1, reach + 1):
      out += (tap(-k) + tap(k)) * weights[k]
    return ((out + 2**23) >> 24).astype(jnp.uint8)

  for axis in (2, 1):
    planes = jax.lax.fori_loop(0, 3, lambda _, x, axis=axis: box_blurred(x, axis), planes)
  return planes


def luma(planes: Array) -> Array:
  """Whole levels [3, H, W] -> int32 [H, W]"""
  r, g, b = (plane.astype(jnp.int32) * share for plane, share in zip(planes, LUMA, strict=True))
  return (r + g + b + 32768) >> 16


def blended(planes: Array, kind: Array, factor: Array, inside: Array) -> Array:
  """uint8 [3, H, W]: brightness, contrast or saturation by the factor; 1 changes nothing.

  The mean that contrast is about is of the pixels `inside` [H, W].
  """
  grey, x = luma(planes), planes.astype(jnp.float32)
  rows = jnp.sum(jnp.where(inside, grey, 0), 1).astype(jnp.float32)
  mean = jnp.floor(jnp.sum(rows) / jnp.sum(inside, dtype=jnp.float32) + 0.5)
  ground = jnp.where(kind == CONTRAST, mean, jnp.where(kind == SATURATION, grey, 0))
  return jnp.clip(jnp.trunc(ground + factor * (x - ground)), 0, 255).astype(jnp.uint8)


def floor_of_product(x: Array, factor: float) -> Array:
  """Exact for a small factor: in one product, what is just below a whole number becomes it."""
  coarse = jnp.floor(x * 4096) / 4096
  high = factor * coarse
  return jnp.floor(high) + jnp.floor(high - jnp.floor(high) + factor * (x - coarse))


def shifted_hue(planes: Array, turn: Array) -> Array:
  """uint8 [3, H, W]; hue and saturation are whole levels on the way, too."""
  x = planes.astype(jnp.float32)
  top, low = jnp.max(x, 0), jnp.min(x, 0)
  r, g, b = (top - x) / jnp.where(top == low, 1, top - low)
  sixths = jnp.where(r == 0, b - g, jnp.where(g == 0, 2 + (r - b), 4 + (g - r)))
  hue = floor_of_product(sixths, 42.5) + jnp.where(sixths < 0, 255, 0)
  share = floor_of_product((top - low) / jnp.maximum(top, 1), 255) / 255
  hue = jnp.mod(jnp.where(top == low, 0, hue) + jnp.trunc(255 * turn), 256) * (6 / 255)

  def channel(n: int) -> Array:
    k = n + hue - jnp.where(n + hue >= 6, 6, 0)
    k = k - jnp.where(k >= 6, 6, 0)  # a hue of 255 is a whole turn
    return jnp.floor(top * (1 - share * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)) + 0.5)

  return jnp.stack([channel(n) for n in (5, 3, 1)]).astype(jnp.uint8)


def jittered(planes: Array, order: Array, factors: Array, inside: Array) -> Array:
  """uint8 [3, H, W] -> uint8; `inside` as in `blended`.

  Without branches, which mapped over images would all run: three blends before the hue and three
  after it, of which three have the factor 1.
  """
  turned = jnp.argmax(order == HUE)
  rest = jnp.where(jnp.arange(3) < turned, order[:3], order[1:])
  chosen = factors[rest]

  def blend(factors: Array, planes: Array) -> Array:
    step = lambda k, x: blended(x, rest[k], factors[k], inside)
    return jax.lax.fori_loop(0, 3, step, planes)

  before = jnp.arange(3) < turned
  planes = shifted_hue(blend(jnp.where(before, chosen, 1), planes), factors[HUE])
  return blend(jnp.where(before, 1, chosen), planes)


def noisy(
  image: Array,
  drawn: Noise,
  *,
  blur: float,
  jitter: bool,
  greyscale: bool,
  extent: Array | None = None,
) -> Array:
  """uint8 [H, W, 3] -> uint8. `blur` is the largest radius that may be drawn, 0 for none.

  `jitter` and `greyscale` tell whether they may be drawn; `extent` as in `blurred`.
  """
  h, w = image.shape[:2]
  planes = jnp.moveaxis(image, -1, 0)  # a channel's pixels side by side: much faster on a CPU
  if blur:
    planes = blurred(planes, drawn.radius, most=blur, extent=extent)
  if jitter:
    end = (h, w) if extent is None else extent
    inside = (jnp.arange(h)[:, None] < end[0]) & (jnp.arange(w) < end[1])
    changed = jittered(planes, drawn.order, drawn.factors, inside)
    planes = jnp.where(drawn.jittered, changed, planes)
  if greyscale:
    planes = jnp.where(drawn.grey, luma(planes).astype(jnp.uint8), planes)
  return jnp.moveaxis(planes, 0, -1)
