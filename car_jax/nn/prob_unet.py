"""The Probabilistic U-Net (Kohl et al., NeurIPS 2018): a U-Net, and one Gaussian latent an image.

The structure is that of the original, where kernels start as draws of a normal distribution without
its tails. `one_logit`, `wide_latent_bias` and `orthogonal` give its port to PyTorch by S. Knegt.
Letters: B images, N samples, L latent size, H x W pixels, C classes, F channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.gaussian import Gaussian
from car_jax.nn import init
from car_jax.nn import net as nets
from car_jax.nn.layers import at_least_float32, check_multiple, check_two_classes, dense, of_two
from car_jax.nn.three_conv_unet import KAIMING, ThreeConvNet, contracted, expanded
from car_jax.options import Positive, Width
from car_jax.typing import Array


class Joined(nn.Module):
  """Dense of [features, z] of every pixel: features [B, H, W, F], z [B, N, L] -> [B, N, H, W, G].

  The features' part is computed once for all samples.
  """

  width: int
  dtype: Any = None

  @nn.compact
  def __call__(self, features: Array, z: Array) -> Array:
    inputs = features.shape[-1] + z.shape[-1]
    kernel = self.param('kernel', init.RULED, (inputs, self.width))
    bias = self.param('bias', init.RULED, (self.width,))
    features, z, kernel, bias = nn.dtypes.promote_dtype(features, z, kernel, bias, dtype=self.dtype)
    of_features, of_z = jnp.split(kernel, [features.shape[-1]])
    shared = features @ of_features + bias
    return shared[:, None] + (z @ of_z)[:, :, None, None]


class ProbUNet(ThreeConvNet):
  """`features` and `prior` once per image, `posterior` in training, `combined` for any latents.

  `widths` are those of the U-Net and of both latent nets.
  """

  latent: Width = 6
  """Size of the latent."""
  combination: Positive = 4
  """Layers that join features and latent, the last one included."""
  norm: bool = False
  """Batch norm after each convolution of three by three."""
  align_corners: bool = True
  """Whether maps are enlarged with the centres of corner pixels on each other."""
  one_logit: bool = False
  """A single logit for the second of two classes, whose mask the posterior sees as 0 and 1."""
  wide_latent_bias: bool = False
  """Biases of the latents start as normal draws of deviation 1 in place of 0.001."""
  orthogonal: bool = False
  """Kernels of the layers that join features and latent start orthogonal."""

  @property
  def INIT(self) -> init.Table:
    wide = init.normal(1.0) if self.wide_latent_bias else init.tiny_truncated_normal
    joining = init.orthogonal if self.orthogonal else init.kaiming_fan_in
    latents = (r'/(prior|posterior)/bias', wide)
    return (latents, (r'/combine\d+/kernel', joining), *KAIMING)

  def setup(self) -> None:
    if self.one_logit:
      check_two_classes('method.model.one_logit', self.num_classes)
    w, d = self.widths, self.dtype
    block = lambda f, name: self.block(f, name, self.norm)
    self.downs = [block(f, f'down{k}') for k, f in enumerate(w)]
    self.ups = [block(f, f'up{k}') for k, f in enumerate(w[:-1])]
    self.prior_downs = [block(f, f'prior_down{k}') for k, f in enumerate(w)]
    self.posterior_downs = [block(f, f'posterior_down{k}') for k, f in enumerate(w)]
    self.prior_out = nn.Dense(2 * self.latent, name='prior')
    self.posterior_out = nn.Dense(2 * self.latent, name='posterior')
    widths = [w[0]] * (self.combination - 1) + [1 if self.one_logit else self.num_classes]
    self.joined = Joined(widths[0], d, name='combine0')
    self.layers = [dense(f, dtype=d, name=f'combine{k}') for k, f in enumerate(widths[1:], 1)]

  def features(self, x: Array, *, train: bool) -> Array:
    """x [B, H, W, channels] -> [B, H, W, F]"""
    check_multiple(x.shape, self.multiple, f'a U-Net with {len(self.widths)} levels')
    return expanded(self.ups, contracted(self.downs, x, train), train, self.align_corners)

  def prior(self, x: Array, share: np.ndarray | None = None, *, train: bool) -> Gaussian:
    """x [B, H, W, channels] -> the latent's distribution [B, L].

    share [h, w, 1]: how much each place of the coarsest map counts; see nn/net.py.
    """
    return self._latent(self.prior_out, contracted(self.prior_downs, x, train)[-1], share)

  def posterior(self, x: Array, label: Array, *, train: bool) -> Gaussian:
    """x and label [B, H, W], -1 for none -> the latent's distribution [B, L]."""
    seen = (
      label[..., None] == 1 if self.one_logit else jax.nn.one_hot(label, self.num_classes) - 0.5
    )
    x = jnp.concatenate([x, seen.astype(x.dtype)], -1)
    return self._latent(self.posterior_out, contracted(self.posterior_downs, x, train)[-1], None)

  def _latent(self, layer: nn.Dense, coarse: Array, share: np.ndarray | None) -> Gaussian:
    mean, log_deviation = jnp.split(layer(nets.mean(coarse, share)), 2, -1)
    return Gaussian(mean, jnp.exp(log_deviation))

  def combined(self, features: Array, z: Array) -> Array:
    """features [B, H, W, F], z [B, N, L] -> logits [B, N, H, W, C] float32."""
    x = self.joined(features, z)
    for layer in self.layers:
      x = layer(nn.relu(x))
    x = at_least_float32(x)
    return of_two(x) if self.one_logit else x

  def __call__(self, x: Array, label: Array, noise: Array, *, train: bool) -> Any:
    """x, label [B, H, W], noise [B, N, L] -> logits [B, N, H, W, C] of latents of the posterior,
    prior, posterior."""
    prior, posterior = self.prior(x, train=train), self.posterior(x, label, train=train)
    z = jax.tree.map(lambda a: a[:, None], posterior).drawn(noise)
    return self.combined(self.features(x, train=train), z), prior, posterior
