"""Nets in training, for methods to be made of. Letters as in methods/base.py."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.struct

from car_jax import registry
from car_jax.methods.base import Array
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

  def descended(
    self, optimizer: Adam, step: Array, grads: Any, batch_stats: Any, rate: Array | None = None
  ) -> 'Trained':
    """The net after one update of `optimizer` at the run's `step`, or at a given rate."""
    params, opt_state = optimizer.update(step, grads, self.opt_state, self.params, rate)
    return Trained(params, batch_stats, opt_state)


def start(net: Any, optimizer: Adam, seed: int, *inputs: Any, **kw: Any) -> Trained:
  """A net's first state; `inputs` only lend their shapes."""
  variables = initialize(net, seed, *inputs, **kw)
  params = variables['params']
  return Trained(params, variables.get('batch_stats', {}), optimizer.init(params))


@dataclasses.dataclass(frozen=True)
class OneNet:
  """What methods of a single net share: `model` names one of the registry, `optim` holds the fields
  of optim.Adam."""

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
