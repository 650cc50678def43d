"""Plain cross-entropy segmentation: baselines, and a calibration net trained ahead of CAR.

Trained on one reader drawn at random per access, the probabilities approach the readers'
frequencies.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np

from car_jax import registry
from car_jax.losses import segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Array, Batch, Logs, Samples
from car_jax.nn.init import initialize
from car_jax.optim import Adam, adam


@flax.struct.dataclass
class Trained:
  """One net: its linen variables and its optimizer's state."""

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats}


def start(net: Any, optimizer: Adam, seed: int, *inputs: Any, **kw: Any) -> Trained:
  """A net's first state; `inputs` only lend their shapes."""
  variables = initialize(net, seed, *inputs, **kw)
  params = variables['params']
  return Trained(params, variables.get('batch_stats', {}), optimizer.init(params))


@flax.struct.dataclass
class State:
  step: Array
  net: Trained


@dataclasses.dataclass(frozen=True)
class Supervised:
  """`model` names a net of the registry; `optim` holds the fields of optim.Adam."""

  num_classes: int
  steps_per_epoch: int
  model: Mapping[str, Any]
  optim: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ignore_label: int | None = None

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=self.num_classes)

  @property
  def optimizer(self) -> Adam:
    return adam(self.optim, self.steps_per_epoch)

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
    params, opt_state = self.optimizer.update(
      state.step, grads, state.net.opt_state, state.net.params
    )
    net = Trained(params, stats, opt_state)
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
