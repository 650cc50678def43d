"""PHiSeg's three nets (Baumgartner et al., MICCAI 2019): prior, posterior, likelihood.

As in the port of UNet-Zoo (Baumgartner's group and A. Gigandet), with any numbers of classes and
levels and without an upsampling block that is never run there. Letters: B images, C classes,
L latent levels (0 the finest), R resolution levels, D channels of a latent; latent level i lies at
1 / 2 ** (i + R - L) of the image.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.gaussian import Gaussian
from car_jax.nn import init
from car_jax.nn.layers import at_least_float32, check_multiple, conv, through
from car_jax.nn.resize import resize_nearest
from car_jax.nn.three_conv_unet import KAIMING, Block, ThreeConvNet, contracted, doubled
from car_jax.options import Positive, Width
from car_jax.typing import Array


class LatentNet(nn.Module):
  """Gaussian latents of each level, the coarsest first; each sees the draw of the one before."""

  widths: Sequence[int]
  levels: int
  latent: int
  momentum: float
  dtype: Any = None

  def setup(self) -> None:
    w, d, n = self.widths, self.dtype, self.levels
    first, above = len(w) - n, 2 * w[0]
    block = lambda f, name, depth=2: Block(f, self.momentum, d, depth=depth, name=name)
    self.downs = [block(f, f'down{k}', depth=3) for k, f in enumerate(w)]
    self.ups = [block(above, f'up{i}') for i in range(n - 1)]
    inner = [w[first + i] + (above if i < n - 1 else 0) for i in range(n)]
    self.mixes = [block(f, f'mix{i}') for i, f in enumerate(inner)]
    out = lambda name: conv(self.latent, 1, padding=0, name=name)
    self.means = [out(f'mean{i}') for i in range(n)]
    self.deviations = [out(f'deviation{i}') for i in range(n)]

  def encoded(self, x: Array, train: bool) -> list[Array]:
    """x [B, H, W, channels] -> the map of each latent level, fine to coarse."""
    return contracted(self.downs, x, train)[len(self.widths) - self.levels :]

  def level(self, i: int, features: Array, coarser: Array | None, train: bool) -> Gaussian:
    """Latent i [B, h, w, D] from the map of its level and the draw of level i + 1."""
    if coarser is not None:
      up = through(self.ups[i], doubled(coarser.astype(features.dtype), True), train=train)
      features = jnp.concatenate([up, features], -1)
    x = at_least_float32(through(self.mixes[i], features, train=train))
    return Gaussian(self.means[i](x), jax.nn.softplus(self.deviations[i](x)))


class Likelihood(nn.Module):
  """Latents -> logits of each level at full size [B, H, W, C], fine to coarse; summed they are the
  prediction."""

  widths: Sequence[int]
  levels: int
  num_classes: int
  momentum: float
  dtype: Any = None

  @nn.compact
  def __call__(self, latents: Sequence[Array], train: bool) -> list[Array]:
    first, kw = len(self.widths) - self.levels, dict(momentum=self.momentum, dtype=self.dtype)
    maps = []
    for i, z in enumerate(latents):
      x = through(Block(self.widths[i], depth=2, **kw, name=f'level{i}'), z, train=train)
      for k in range(first):
        larger = Block(self.widths[i], depth=1, **kw, name=f'level{i}_up{k}')
        x = through(larger, doubled(x, True), train=train)
      maps.append(x)
    size, logits = maps[0].shape[1:3], []
    x = maps[-1]
    for i in reversed(range(self.levels)):
      if i < self.levels - 1:
        x = jnp.concatenate([maps[i], doubled(x, True)], -1)
        merge = Block(self.widths[i + first], depth=2, **kw, name=f'merge{i}')
        x = through(merge, x, train=train)
      out = conv(self.num_classes, 1, padding=0, dtype=self.dtype, name=f'out{i}')(x)
      logits.append(resize_nearest(at_least_float32(out), size))
    return logits[::-1]


class PHiSegNet(ThreeConvNet):
  """`encoded` once per image, then `generated` for any noise; training calls the net as a whole."""

  levels: Positive = 5
  """Levels that have a latent, the coarsest ones."""
  latent: Width = 2
  """Channels of each latent."""

  wide_latents: bool = False
  """Layers that give the latents start as random as all others, as released: posterior and prior
  then begin 10^4 nats and more apart, where they begin alike otherwise."""

  @property
  def INIT(self) -> init.Table:
    alike = (r'/(mean|deviation)\d/kernel', init.zeros)
    return KAIMING if self.wide_latents else (alike, *KAIMING)

  def setup(self) -> None:
    kw: dict[str, Any] = dict(
      widths=self.widths, levels=self.levels, momentum=self.norm_momentum, dtype=self.dtype
    )
    self.prior = LatentNet(latent=self.latent, **kw, name='prior')
    self.posterior = LatentNet(latent=self.latent, **kw, name='posterior')
    self.likelihood = Likelihood(num_classes=self.num_classes, **kw, name='likelihood')

  def latent_shapes(self, height: Any, width: Any) -> list[tuple[Any, ...]]:
    """(h, w, D) of each latent, fine to coarse. Raises UserError for more levels than widths."""
    if self.levels > len(self.widths):
      raise UserError(
        f'method.model.levels is {self.levels}, with {len(self.widths)} widths\n'
        f'  give {len(self.widths)} or less'
      )
    first = len(self.widths) - self.levels
    return [(height // 2**k, width // 2**k, self.latent) for k in range(first, first + self.levels)]

  def __call__(
    self, x: Array, label: Array, noise: Sequence[Array], *, train: bool
  ) -> tuple[list[Array], list[Gaussian], list[Gaussian]]:
    """x, label [B, H, W] with -1 for none, noise [B, h, w, D] of each latent -> logits of each
    level, priors, posteriors, all from fine to coarse. The prior sees the posterior's draws."""
    check_multiple(x.shape, self.multiple, f'PHiSeg with {len(self.widths)} levels')
    seen = jnp.concatenate([x, jax.nn.one_hot(label, self.num_classes, dtype=x.dtype) - 0.5], -1)
    own, whole = self.prior.encoded(x, train), self.posterior.encoded(seen, train)
    priors, posteriors, draws = [], [], []
    coarser = None
    for i in reversed(range(self.levels)):
      posteriors.append(self.posterior.level(i, whole[i], coarser, train))
      priors.append(self.prior.level(i, own[i], coarser, train))
      coarser = posteriors[-1].drawn(noise[i])
      draws.append(coarser)
    return self.likelihood(draws[::-1], train), priors[::-1], posteriors[::-1]

  def encoded(self, x: Array) -> list[Array]:
    """x [B, H, W, channels] -> the prior's maps of each latent level, in prediction."""
    return self.prior.encoded(x, False)

  def generated(
    self, maps: Sequence[Array], noise: Sequence[Array]
  ) -> tuple[Array, list[Gaussian], list[Array]]:
    """`encoded` maps [B, ..] and noise [B, N, h, w, D] of each latent -> logits [B, N, H, W, C],
    the latents' priors and draws [B N, ..], fine to coarse: each given the draws above it."""
    b, n = noise[-1].shape[:2]
    flat = lambda a: a.reshape(b * n, *a.shape[2:])
    each = lambda a: flat(jnp.broadcast_to(a[:, None], (b, n, *a.shape[1:])))
    priors, draws, coarser = [], [], None
    for i in reversed(range(self.levels)):
      if coarser is None:  # the same for all samples
        prior = jax.tree.map(each, self.prior.level(i, maps[i], None, False))
      else:
        prior = self.prior.level(i, each(maps[i]), coarser, False)
      coarser = prior.drawn(flat(noise[i]))
      priors.append(prior)
      draws.append(coarser)
    logits = jnp.stack(self.likelihood(draws[::-1], False)).sum(0)
    return logits.reshape(b, n, *logits.shape[1:]), priors[::-1], draws[::-1]
