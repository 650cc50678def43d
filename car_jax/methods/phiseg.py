"""PHiSeg (Baumgartner et al., MICCAI 2019): a hierarchy of latent maps, coarse ones first.

Letters: B images, N samples, L latent levels (0 the finest), h x w places of a level, C classes.

Departs from UNet-Zoo's port, whose code it follows: the divergence is that of normal distributions
(there the product of both deviations stands for the prior's variance: `port_kl`); samples are
ancestral, each level given the draws above it (its `sample` redraws levels independently); both
nets' latents begin alike (`wide_latents` of the net).
"""

import dataclasses
from collections.abc import Sequence
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

EPSILON = 1e-10  # of variances


@dataclasses.dataclass(frozen=True)
class PHiSeg(Sampled):
  """`model` is an entry of the registry with PHiSegNet's methods."""

  level_factor: Weight = 4.0
  """Times its power of the level, 0 the finest: weight of that level's divergence."""
  port_kl: bool = False
  """The divergence of the released port."""

  def init(self, seed: int, batch: Batch) -> State:
    net, image = self.net, self.blank(batch)
    label, shapes = np.zeros(image.shape[:3], np.int32), net.latent_shapes(*image.shape[1:3])
    noise = [np.zeros((len(image), *shape), np.float32) for shape in shapes]
    made = create(net, self.optimizer, seed, image, label, noise, train=False)
    return State(step=np.int32(0), net=made)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> list[Array]:
    shapes = self.net.latent_shapes(*nets.taken(self.net, (height, width)))
    keys = jax.random.split(key, len(shapes))
    return [jax.random.normal(k, (n, *shape)) for k, shape in zip(keys, shapes, strict=True)]

  def training_noise(self, key: Array, batch: Batch) -> list[Array]:
    b, *size = batch['image'].shape[:3]
    return self.noise(key, b, *size)

  def loss(
    self, variables: Any, batch: Batch, noise: Sequence[Array], rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """Minus the evidence lower bound; every level's logits, with those above it, learn the label.

    noise [B, h, w, D] of each level. Logs have each level's part of both terms.
    """
    label, known = self.labelled(batch)
    seen = self.known(batch['label'])
    (logits, priors, posteriors), new = self.net.apply(
      variables, self.observed(batch), seen, noise, train=True, rngs=rngs, mutable=['batch_stats']
    )
    above = jnp.zeros_like(logits[-1])
    logs = {}
    for i in reversed(range(len(logits))):
      above = above + logits[i]
      likelihood = segmentation.log_likelihood(above, label, known)
      apart = gaussian.divergence(posteriors[i], priors[i], epsilon=EPSILON, swapped=self.port_kl)
      logs[f'cross_entropy/level{i}'] = -jnp.mean(likelihood)
      logs[f'divergence/level{i}'] = self.level_factor**i * jnp.mean(apart)
    total = lambda term: sum(v for k, v in logs.items() if k.startswith(term))
    parts = {f'loss/{term}': total(term) for term in ('cross_entropy', 'divergence')}
    return parts, logs, new.get('batch_stats', {})

  def drawn(self, state: State, batch: Batch, noise: Sequence[Array]) -> Array:
    net, variables, x = self.net, state.net.variables, self.observed(batch)
    maps = net.apply(variables, nets.mirrored(net, x), method='encoded')
    logits, _, _ = net.apply(variables, maps, noise, method='generated')
    height, width = x.shape[1:3]
    return jax.nn.softmax(logits[:, :, :height, :width])

  def of_means(self, state: State, batch: Batch) -> Array:
    """Class probabilities [B, H, W, C] with every latent at its mean."""
    b, *size = batch['image'].shape[:3]
    shapes = self.net.latent_shapes(*nets.taken(self.net, tuple(size)))
    noise = [jnp.zeros((b, 1, *shape)) for shape in shapes]
    return self.drawn(state, batch, noise)[:, 0]

  def predictors(self) -> dict[str, Any]:
    return super().predictors() | {'mean latents': baselines.argmax_of(self.of_means)}
