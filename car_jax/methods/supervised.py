"""Plain cross-entropy segmentation: baselines, and a calibration net trained ahead of CAR.

Trained on one reader drawn at random per access, the probabilities approach the readers'
frequencies.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import numpy as np

from car_jax.losses import segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Array, Batch, Logs, Samples
from car_jax.methods.trained import OneNet, Trained, start


@flax.struct.dataclass
class State:
  step: Array
  net: Trained


@dataclasses.dataclass(frozen=True)
class Supervised(OneNet):
  """Pixels of `ignore_label` are not learnt from."""

  def init(self, seed: int, batch: Batch) -> State:
    net = start(self.net, self.optimizer, seed, batch['image'], train=False)
    return State(step=np.int32(0), net=net)

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    def loss_of(params):
      logits, new = self.net.apply(
        {'params': params, 'batch_stats': state.net.batch_stats},
        batch['image'],
        train=True,
        rngs={'dropout': rng},
        mutable=['batch_stats'],
      )
      mask = None if self.ignore_label is None else batch['label'] != self.ignore_label
      return segmentation.cross_entropy(logits, batch['label'], mask), new['batch_stats']

    (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state.net.params)
    net = state.net.descended(self.optimizer, state.step, grads, stats)
    return State(state.step + 1, net), {'loss/cross_entropy': loss}

  def probabilities(self, state: State, batch: Batch) -> Array:
    """[B, H, W, C]"""
    return jax.nn.softmax(self.net.apply(state.net.variables, batch['image'], train=False))

  def predictors(self) -> dict[str, Any]:
    def argmax(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      return baselines.most_likely(self.probabilities(state, batch), n)

    def independent(state: State, batch: Batch, rng: Array, n: int) -> Samples:
      return baselines.independent_pixels(self.probabilities(state, batch), batch, rng, n)

    return {'argmax': argmax, 'independent pixels': independent}
