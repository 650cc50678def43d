"""The Probabilistic U-Net (Kohl et al., NeurIPS 2018): a conditional variational autoencoder.

A latent of the image alone (prior) and one of image and label (posterior) are normal; training
minimises cross entropy of a label given the posterior's latent plus beta times their divergence.
Letters: B images, N samples, L latent size, H x W pixels, C classes.

The original's form by default: pixels summed, images averaged. The port to PyTorch by S. Knegt,
whose scores are often quoted, sums images too (`sum_over_batch`, which makes beta as many times
smaller), adds the norms of parameters, not their squares (`norm_weight`), and has one logit.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import gaussian
from car_jax.losses import segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs
from car_jax.methods.sampled import Sampled
from car_jax.methods.train_state import State, create
from car_jax.nn import net as nets
from car_jax.options import Weight
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class ProbabilisticUNet(Sampled):
  """`model` is an entry of the registry with ProbUNet's methods."""

  beta: Weight = 1.0
  """Weight of the divergence of posterior from prior."""
  sum_over_batch: bool = False
  """Sum cross entropy over the images of a batch, whose mean it is else."""
  norm_weight: Weight = 0.0
  """Weight of the summed norms of all parameters but the U-Net's and the last layer's, not squared
  as the optimizer's weight_decay is."""

  def init(self, seed: int, batch: Batch) -> State:
    net, image = self.net, self.blank(batch)
    label, noise = np.zeros(image.shape[:3], np.int32), np.zeros((len(image), 1, net.latent))
    net = create(net, self.optimizer, seed, image, label, noise.astype(np.float32), train=False)
    return State(step=np.int32(0), net=net)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> Array:
    return jax.random.normal(key, (n, self.net.latent))

  def training_noise(self, key: Array, batch: Batch) -> Array:
    return jax.random.normal(key, (len(batch['image']), 1, self.net.latent))

  def loss(
    self, variables: Any, batch: Batch, noise: Array, rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """Minus the evidence lower bound of labels, Eq. 4 of the paper; noise [B, 1, L]."""
    label, known = self.labelled(batch)
    seen = self.known(batch['label'])
    (logits, prior, posterior), new = self.net.apply(
      variables, self.observed(batch), seen, noise, train=True, rngs=rngs, mutable=['batch_stats']
    )
    reduce = jnp.sum if self.sum_over_batch else jnp.mean
    likelihood = segmentation.log_likelihood(logits[:, 0], label, known)
    parts = {
      'loss/cross_entropy': -reduce(likelihood),
      'loss/divergence': self.beta * jnp.mean(gaussian.divergence(posterior, prior)),
    }
    if self.norm_weight:
      parts['loss/norms'] = self.norm_weight * self.norms(variables['params'])
    return parts, {}, new.get('batch_stats', {})

  def norms(self, params: Any) -> Array:
    """The sum of norms that `norm_weight` weighs."""
    last = f'combine{self.net.combination - 1}'
    counts = lambda name: re.match('prior|posterior|combine', name) and name != last
    counted = {name: of for name, of in params.items() if counts(name)}
    squares = (jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(counted))
    # The norm has no gradient at zero, where biases of normalised layers start: none is taken.
    return sum(jnp.sqrt(jnp.where(x > 0, x, 1)) * (x > 0) for x in squares)

  def encoded(self, state: State, batch: Batch) -> tuple[Array, gaussian.Gaussian]:
    """Features [B, H, W, F] and the latent's prior [B, L]."""
    net, variables, x = self.net, state.net.variables, self.observed(batch)
    h, w = size = x.shape[1:3]
    seen = nets.mirrored(net, x)
    places = tuple(side // net.multiple for side in seen.shape[1:3])
    share = nets.shares(net, size, places)
    features = net.apply(variables, seen, train=False, method='features')
    prior = net.apply(variables, seen, share, train=False, method='prior')
    return features[:, :h, :w], prior

  def combined(self, state: State, features: Array, z: Array) -> Array:
    logits = self.net.apply(state.net.variables, features, z, method='combined')
    return jax.nn.softmax(logits)

  def drawn(self, state: State, batch: Batch, noise: Array) -> Array:
    features, prior = self.encoded(state, batch)
    z = jax.tree.map(lambda a: a[:, None], prior).drawn(noise)
    return self.combined(state, features, z)

  def of_mean(self, state: State, batch: Batch) -> Array:
    """Class probabilities [B, H, W, C] at the latent's mean."""
    features, prior = self.encoded(state, batch)
    return self.combined(state, features, prior.mean[:, None])[:, 0]

  def predictors(self) -> dict[str, Any]:
    return super().predictors() | {'mean latent': baselines.argmax_of(self.of_mean)}
