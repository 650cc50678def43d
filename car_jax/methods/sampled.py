"""What methods share whose one net draws whole segmentations of an image from noise.

Letters as in methods/base.py.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs, Samples, example_keys
from car_jax.methods.observed import Observed
from car_jax.methods.train_state import OneNet, Recomputing, State, create
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Sampled(Recomputing, Observed, OneNet):
  """`loss` and `drawn` make a method of it. Labels are one reader's, drawn by the data; pixels of
  `ignore_label` are not learnt from.

  Noise is a tree of arrays, of standard normal draws or of keys: `noise(key, n, height, width)`
  gives that of n segmentations of one image, `training_noise` that of a training step.
  """

  def init(self, seed: int, batch: Batch) -> State:
    image = self.blank(batch)
    net = create(self.net, self.optimizer, seed, image, train=False)
    return State(step=np.int32(0), net=net)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> Any:
    raise NotImplementedError

  def training_noise(self, key: Array, batch: Batch) -> Any:
    raise NotImplementedError

  def loss(
    self, variables: Any, batch: Batch, noise: Any, rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """-> parts of the loss by name, other things to log, the new batch_stats."""
    raise NotImplementedError

  def drawn(self, state: State, batch: Batch, noise: Any) -> Array:
    """Noise of each image -> class probabilities [B, N, H, W, C] of each segmentation; what these
    share is computed once."""
    raise NotImplementedError

  def step(self, state: State, batch: Batch, rng: Array, **kw: Any) -> tuple[State, Logs]:
    rng, dropout = jax.random.split(rng)
    noise = self.training_noise(rng, batch)
    return self.update(state, batch, noise, rngs={'dropout': dropout}, **kw)

  def update(self, state: State, batch: Batch, noise: Any, **kw: Any) -> tuple[State, Logs]:
    """One step with given noise; keywords are `loss`'s."""

    def loss_of(params):
      variables = {'params': params, 'batch_stats': state.net.batch_stats}
      parts, logs, stats = self.loss(variables, batch, noise, **kw)
      return sum(parts.values()), (parts | logs, stats)

    differentiated = jax.value_and_grad(self.recomputed(loss_of), has_aux=True)
    (_, (logs, stats)), grads = differentiated(state.net.params)
    net = state.net.apply_gradients(self.optimizer, state.step, grads, stats)
    return state.replace(step=state.step + 1, net=net), logs

  def labelled(self, batch: Batch) -> tuple[Array, Array]:
    """A reader's label [B, H, W], 0 where nothing is learnt, and where it is."""
    label = self.known(batch['label'])
    return jnp.maximum(label, 0), label >= 0

  def predictors(self) -> dict[str, Any]:
    def samples(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      height, width = batch['image'].shape[1:3]
      noise = jax.vmap(lambda key: self.noise(key, n, height, width))(example_keys(rng, batch))
      probs = self.drawn(state, batch, noise)
      return Samples(probs, baselines.uniform(probs.shape[0], n))

    return {'samples': samples}
