"""MoSE's network: a U-Net, a gate, Gaussian experts in a small latent space, one head for a sample.

Source: Gao et al., ICLR 2023, as released. Letters: B images, N samples, K experts, L latent size,
H x W pixels, C classes, F channels of the features.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn import net as nets
from car_jax.nn.layers import BatchNorm, at_least_float32, check_multiple, dense, part
from car_jax.nn.mix import Mix
from car_jax.nn.three_conv_unet import (
  CONVOLUTIONS,
  NORM_EPSILON,
  ThreeConvNet,
  contracted,
  expanded,
)
from car_jax.options import Width
from car_jax.typing import Array


class MoSENet(ThreeConvNet):
  """`features` and `gate` once per image, then `head` for any latents.

  latent_size L, experts K (at least 2 ** L: the first means are the binary codes of L digits).
  """

  latent: Width = 1
  """Size of the latent."""
  experts: Width = 4
  """Experts of the mixture."""

  INIT = (
    *CONVOLUTIONS,
    (r'(shift|scale)/kernel', init.xavier_uniform),
    (r'(shift|scale)/bias', init.zeros),
    (r'^params/means', init.binary_codes),
    (r'^params/log_deviations', init.log_eighth),
    *init.TORCH,
  )

  def setup(self) -> None:
    if self.experts < 2**self.latent:
      raise UserError(
        f'{self.experts} experts are fewer than the {2**self.latent} codes of a latent of size '
        f'{self.latent}\n  use experts={2**self.latent} or more'
      )
    w, d = self.widths, self.dtype
    self.downs = [self.block(f, f'down{k}') for k, f in enumerate(w)]
    self.ups = [self.block(f, f'up{k}') for k, f in enumerate(w[:-1])]
    self.gate_layers = [nn.Dense(w[-1], name=f'gate{k}') for k in (1, 2)]
    self.gate_out = nn.Dense(self.experts, use_bias=False, name='gate3')
    self.shift, self.scale = nn.Dense(w[0], name='shift'), nn.Dense(w[0], name='scale')
    self.mix = Mix(w[0] + self.latent, d, name='mix')
    self.heads = [dense(w[0], dtype=d, name=f'head{k}') for k in (1, 2, 3)]
    norm = lambda k: BatchNorm(NORM_EPSILON, self.norm_momentum, name=f'head_norm{k}')
    self.norms = [norm(k) for k in (1, 2, 3)]
    self.out = dense(self.num_classes, dtype=d, name='out')
    shape = (self.experts, self.latent)
    self.means = self.param('means', init.RULED, shape)
    self.log_deviations = self.param('log_deviations', init.RULED, shape)

  def features(self, x: Array, *, train: bool) -> tuple[list[Array], Array]:
    """x [B, H, W, channels] -> the encoder's outputs, fine to coarse, and features [B, H, W, F]."""
    check_multiple(x.shape, self.multiple, f'MoSE with {len(self.widths)} levels')
    skips = contracted(self.downs, x, train)
    return skips, expanded(self.ups, skips, train, False)

  def gate(self, coarse: Array, share: np.ndarray | None = None) -> Array:
    """The encoder's last output [B, h, w, f] -> probability of each expert [B, K].

    share [h, w, 1]: how much each place counts; see nn/net.py.
    """
    x = nets.mean(coarse, share)
    for layer in self.gate_layers:
      x = nn.relu(layer(x))
    return jax.nn.softmax(self.gate_out(x))

  def deviations(self) -> Array:
    """[K, L]"""
    return jnp.exp(self.log_deviations) + 1e-8

  def compact(self, noise: Array) -> Array:
    """Standard normal noise [B, S, K, L] -> S latents of every expert [B, K S, L], n = k S + s."""
    z = self.means + self.deviations() * noise
    return jnp.swapaxes(z, 1, 2).reshape(len(noise), -1, self.latent)

  def drawn(self, expert: Array, noise: Array) -> Array:
    """Experts [B, N] int and noise [B, N, L] -> one latent of each named expert [B, N, L]."""
    return self.means[expert] + self.deviations()[expert] * noise

  def head(self, features: Array, z: Array, *, train: bool) -> Array:
    """features [B, H, W, F], z [B, N, L] -> logits [B, N, H, W, C].

    In training, batch norm sees all samples of all images together.
    """
    x = self.mix(features[:, None], self.shift(z), self.scale(z) + 1e-5)
    b, n, *rest = x.shape
    x = x.reshape(b * n, *rest)
    for k in range(len(self.heads)):
      layer = lambda net, x, k=k: nn.relu(net.norms[k](net.heads[k](x), train=train))
      x = part(layer, self, x)
    x = at_least_float32(self.out(x))
    return x.reshape(b, n, *x.shape[1:])

  def __call__(self, x: Array, noise: Array, *, train: bool) -> tuple[Array, Array]:
    """x [B, H, W, channels], noise [B, S, K, L] -> logits [B, N, H, W, C], weights [B, N]."""
    skips, features = self.features(x, train=train)
    weight = jnp.repeat(self.gate(skips[-1]) / noise.shape[1], noise.shape[1], axis=1)
    return self.head(features, self.compact(noise), train=train), weight
