"""CAR's generators: a U-Net without full-resolution convolutions, noise injected on the way up.

Source: arXiv 2006.13144 (supplement, architecture). Letters: B images, N latents per image, H x W
pixels, C classes, Z latent size. In the decoder, features are [B, N, h, w, channels], and what does
not depend on the latent keeps N = 1, so that it is computed once for all samples.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.clamp import clamp
from car_jax.nn import init
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import (
  BatchNorm,
  ConvTranspose2x2,
  at_least_float32,
  check_multiple,
  conv,
  part,
  through,
)
from car_jax.nn.mix import Mix
from car_jax.nn.net import Segmenter
from car_jax.options import Share, Width
from car_jax.typing import Array


class NoiseInjector(nn.Module):
  """Shifts and scales features by the latent: conv1x1((f + r)(s + 1e-5)), r and s linear in z."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, f: Array, z: Array) -> Array:
    """f [B, 1 or N, h, w, c], z [B, N, Z] -> [B, N, h, w, features]"""
    linear = lambda name: nn.Dense(f.shape[-1], dtype=self.dtype, name=name)(z)
    return Mix(self.features, self.dtype, name='mix')(f, linear('shift'), linear('scale') + 1e-5)


class UNetGenerator(Segmenter):
  """Image and class probabilities + latents -> logits of N segmentations.

    x [B, H, W, channels], z [B, N, Z] -> [B, N, H, W, C] float32; H and W multiples of 16

  In training, batch norms of the decoder use the statistics of the B images of each sample on its
  own, and dropout masks differ between samples.
  """

  hidden: Width = 32
  """Channels of the first layer."""
  latent: Width = 8
  """Size of the latent."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""

  INIT = (
    (r'(shift|scale)/kernel', init.xavier_uniform),
    (r'(shift|scale)/bias', init.zeros),
    (r'mix/kernel', init.orthogonal),
    (r'mix/bias', init.tiny_truncated_normal),
    (r'(mu|logvar)/kernel', init.xavier_uniform),
    (r'(mu|logvar)/bias', init.zeros),
    *init.TORCH,
  )

  @property
  def multiple(self) -> int:
    return 16

  @nn.compact
  def __call__(self, x: Array, z: Array, *, train: bool) -> Array:
    return self.decode(self.encode(x, train), z, train)

  def encode(self, x: Array, train: bool) -> list[Array]:
    """[B, H, W, channels] -> features at 1/2, 1/4, 1/8 and 1/16."""
    check_multiple(x.shape, self.multiple, 'UNetGenerator')
    features = []

    def level(net: Any, x: Array, k: int) -> Array:
      x = conv(self.hidden * 2**k, stride=2, dtype=self.dtype, name=f'enc{k + 1}_conv')(x)
      x = BatchNorm(name=f'enc{k + 1}_norm')(x, train=train)
      return net._drop(nn.leaky_relu(x, 0.2), train)

    for k in range(4):
      x = part(functools.partial(level, k=k), self, x)
      features.append(x)
    return features

  def decode(self, features: list[Array], z: Array, train: bool) -> Array:
    h, n = self.hidden, z.shape[1]
    d1, d2, d3, d4 = (d[:, None] for d in features)

    def up(name, width, *inputs):
      def level(net, *inputs):
        x = ConvTranspose2x2(width, dtype=self.dtype, name=f'{name}_up')(*inputs)
        x = BatchNorm(name=f'{name}_norm')(x, train=train, updates=n)
        return net._drop(nn.leaky_relu(x, 0.2), train, n)

      return part(level, self, *inputs)

    def inject(name, width, x):
      return through(NoiseInjector(width, dtype=self.dtype, name=name), x, z)

    x = up('dec0', 4 * h, d4)
    x = nn.leaky_relu(inject('noise1', 2 * h, up('dec1', 2 * h, x, d3)), 0.01)
    x = nn.leaky_relu(inject('noise2', h, up('dec2', h, x, d2)), 0.01)
    x = up('dec3', h, x, d1)
    return at_least_float32(inject('head', self.num_classes, x))

  def _drop(self, x: Array, train: bool, n: int = 1) -> Array:
    """Dropout, with a mask per sample: shared features become one copy per sample."""
    if not train or not self.dropout:
      return x
    if x.ndim == 5 and x.shape[1] < n:
      x = jnp.broadcast_to(x, (x.shape[0], n, *x.shape[2:]))
    return Dropout(self.dropout, deterministic=False)(x)


class UNetVAEGenerator(UNetGenerator):
  """The same decoder, with latents drawn from N(mu(x), exp(logvar(x))) instead of N(0, I).

    x, eps [B, N, Z] standard normal -> logits [B, N, H, W, C], mu [B, Z], logvar [B, Z]

  The published code draws without a reparameterised gradient, so that mu and logvar learn from the
  KL term alone; reparameterize=True mends that. Its unused `project_z` branch is left out.
  """

  reparameterize: bool = False
  """In training draw the latent from the encoder."""

  @nn.compact
  def __call__(self, x: Array, z: Array, *, train: bool) -> tuple[Array, Array, Array]:
    features = self.encode(x, train)
    flat = at_least_float32(jnp.moveaxis(features[-1], -1, 1).reshape(x.shape[0], -1))
    mu = nn.Dense(self.latent, name='mu')(flat)
    logvar = clamp(nn.Dense(self.latent, name='logvar')(flat), math.log(1e-7))
    z = mu[:, None] + jnp.exp(logvar / 2)[:, None] * z
    z = z if self.reparameterize else jax.lax.stop_gradient(z)
    return self.decode(features, z, train), mu, logvar
