"""Nets in training, for methods to be made of. Letters as in methods/base.py."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import checkpoints, registry, sharding
from car_jax.methods.base import Method
from car_jax.nn.init import initialize
from car_jax.nn.layers import recomputing
from car_jax.optim import Averaged, Optimizer, optimizer
from car_jax.options import Net, Optim
from car_jax.typing import Array


class Frozen(flax.struct.PyTreeNode):
  """A net that only predicts."""

  params: Any
  batch_stats: Any

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats}

  def with_variables(self, params: Any, batch_stats: Any) -> Any:
    """The same net at another start."""
    return self.replace(params=params, batch_stats=batch_stats)


class TrainState(Frozen):
  """A net in training: its linen variables and its optimizer's state."""

  opt_state: Any

  def apply_gradients(
    self,
    optimizer: Optimizer,
    step: Array,
    grads: Any,
    batch_stats: Any,
    rate: Array | None = None,
  ) -> 'TrainState':
    """The net after one update of `optimizer` at the run's `step`, or at a given rate."""
    params, opt_state = optimizer.update(step, grads, self.opt_state, self.params, rate)
    return TrainState(params, batch_stats, opt_state)

  def with_variables(self, params: Any, batch_stats: Any) -> 'TrainState':
    """The same net at another start; an average of its parameters begins there too."""
    state = self.opt_state
    if isinstance(state, Averaged):
      state = state.replace(params=jax.tree.map(np.array, params))
    return TrainState(params, batch_stats, state)


class State(flax.struct.PyTreeNode):
  """The state of a method of one net."""

  step: Array
  net: TrainState


def create(net: Any, optimizer: Optimizer, seed: int, *inputs: Any, **kw: Any) -> TrainState:
  """A net's first state; `inputs` only lend their shapes."""
  variables = initialize(net, seed, *inputs, **kw)
  params = variables['params']
  return TrainState(params, variables.get('batch_stats', {}), optimizer.init(params))


def nets(state: Any) -> dict[str, Frozen]:
  """Those of a method's state by their fields."""
  values = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return {name: value for name, value in values.items() if isinstance(value, Frozen)}


def not_finite(state: Any) -> list[str]:
  """Paths of its nets' arrays of which this process has a number that is not finite."""
  variables = {name: net.variables for name, net in nets(state).items()}
  finite = lambda a: all(np.isfinite(part).all() for part in sharding.parts(a))
  return [path for path, a in checkpoints.leaves(variables) if not finite(a)]


def for_evaluation(state: Any) -> Any:
  """A method's state without its optimizers', each net with its averaged parameters if it has
  any."""

  def evaluated(x: Any) -> Any:
    if not isinstance(x, TrainState):
      return x
    average = x.opt_state.params if isinstance(x.opt_state, Averaged) else x.params
    return x.replace(params=average, opt_state=())

  return jax.tree.map(evaluated, state, is_leaf=lambda x: isinstance(x, TrainState))


def saved_variables(part: Any) -> dict[str, Any]:
  """The params and batch_stats that evaluation uses, of a net as a checkpoint holds it; both empty
  where the part is no net."""
  part = part if isinstance(part, dict) else {}
  state = part.get('opt_state')
  averaged = isinstance(state, dict) and {*state} == {f.name for f in dataclasses.fields(Averaged)}
  params = state['params'] if averaged else part.get('params')
  return {'params': params or {}, 'batch_stats': part.get('batch_stats') or {}}


def full_size(out: Any) -> Array:
  """A net's logits, at the image's size where it returns them at two, low and full."""
  return out[-1] if isinstance(out, tuple) else out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recomputing:
  """Memory for time, of methods whose losses go through `recomputed`."""

  remat: bool = False
  """Keep what goes into blocks of a net in training, and compute what is inside of them again: less
  memory, and up to a third more time."""

  def recomputed(self, loss: Callable) -> Callable:
    """A function to be differentiated, in which with `remat` nets are traced so."""

    @functools.wraps(loss)
    def traced(*args: Any) -> Any:
      with recomputing() if self.remat else contextlib.nullcontext():
        return loss(*args)

    return traced


@dataclasses.dataclass(frozen=True)
class OneNet(Method):
  """What methods of a single net share: `model` names one of the registry, `optim` holds the fields
  of optim.Adam, or with name='sgd' those of optim.SGD."""

  num_classes: int
  steps_per_epoch: int
  model: Net
  """The net."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adam'))
  """Its optimizer."""
  ignore_label: int | None = None

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=self.num_classes)

  @property
  def optimizer(self) -> Optimizer:
    return optimizer(self.optim, self.steps_per_epoch, self.net)

  def known(self, label: Array) -> Array:
    """Labels with -1 for what is not learnt from: ignored pixels, and numbers of no class."""
    valid = (label >= 0) & (label < self.num_classes)
    if self.ignore_label is not None:
      valid &= label != self.ignore_label
    return jnp.where(valid, label, -1)
