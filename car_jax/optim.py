"""Optimizers from config entries, with the learning rate a function of the *run's* step.

An optimizer that skips updates (a discriminator's) keeps the pace of the run: its own update count
drives Adam's bias correction only, never the schedule. optax makes the directions; rates, decays
and what is frozen may differ between parameters, told apart by patterns in their paths.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from car_jax import registry
from car_jax.errors import UserError, nearest
from car_jax.options import Count, Positive, Range, Share, Weight
from car_jax.typing import Array

Rate = Annotated[float, Range(0.0, 1e3)]
Decay = Annotated[float, Range(0.0, 0.999999)]  # of a moving average; with 1 it never moves
Table = tuple[tuple[str, Weight], ...]


class Averaged(flax.struct.PyTreeNode):
  """An optimizer's state, and the running average of the parameters that it makes."""

  state: Any
  params: Any


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """What all optimizers share: the rate of every step and parameter, clipping, accumulation, the
  parameters' average.

  A path is such as 'backbone/stem_conv/kernel'; the first pattern found in it counts.
  """

  lr: Rate = 1e-3
  """The learning rate before its schedule."""
  schedule: Literal['multistep', 'poly', 'cosine'] = 'multistep'
  """How the rate changes: at milestones, or to `end` over `decay_steps` steps."""
  milestones: tuple[Count, ...] = ()
  """Epochs at whose start the rate is multiplied by `factor`; none for a constant rate."""
  factor: Annotated[float, Range(0.0, 1e3)] = 0.5
  """What the rate is multiplied by at each milestone."""
  factors: tuple[Annotated[float, Range(0.0, 1e3)], ...] = ()
  """The same where it differs: one for each milestone."""
  decay_steps: Count = 0
  """Steps over which poly and cosine take the rate to `end`."""
  power: Annotated[float, Range(0.0, 100.0)] = 1.0
  """Of poly: the rate falls with (1 - step / decay_steps) to this power."""
  end: Rate = 0.0
  """The last rate of poly and cosine."""
  warmup_steps: Count = 0
  """Steps in which the rate grows linearly to what the schedule says."""
  warmup_start: Share = 0.0
  """The share of the rate that warm-up begins with."""
  rates: Table = ()
  """(pattern, factor) pairs: parameters whose rate is multiplied; 0 freezes them."""
  decays: Table = ()
  """(pattern, factor) pairs: parameters whose weight decay is multiplied."""
  clip: Weight = 0.0
  """The largest norm of all gradients together; longer ones are shortened. 0 for none."""
  accumulate: Positive = 1
  """Steps whose mean gradient makes one update, clipped as one. Steps of a config, its epochs and
  its logs count batches all the same."""
  ema: Decay = 0.0
  """Decay of a running average of the parameters, which evaluation then uses; 0 for none."""
  ema_warmup: bool = True
  """Of a young run average over fewer updates: after n of them with a decay of at most
  (1 + n) / (10 + n). Without, the average is of the random start for long."""
  steps_per_epoch: int = 1

  def __post_init__(self) -> None:
    if self.schedule != 'multistep' and not self.decay_steps:
      raise UserError(f'schedule {self.schedule!r} needs decay_steps, the steps that it takes')
    if len(self.factors) not in (0, len(self.milestones)):
      raise UserError(
        f'factors has {len(self.factors)} number(s) for {len(self.milestones)} milestone(s)\n'
        '  give one for each, or factor'
      )
    for pattern, _ in (*self.rates, *self.decays):
      try:
        re.compile(pattern)
      except re.error as e:
        raise UserError(f'{pattern!r} is no pattern of parameter paths ({e})') from None

  @property
  def direction(self) -> optax.GradientTransformation:
    """Gradients -> what is subtracted, but for the rate."""
    raise NotImplementedError

  def rate(self, step: Array | int) -> Array:
    """The learning rate of the run's step, from 0."""
    step = jnp.asarray(step)
    if self.schedule == 'poly':
      rate = optax.polynomial_schedule(self.lr, self.end, self.power, self.decay_steps)(step)
    elif self.schedule == 'cosine':
      shape = optax.cosine_decay_schedule(1.0, self.decay_steps)(step)
      rate = self.end + (self.lr - self.end) * shape
    else:
      rate = self._after_milestones(step // self.steps_per_epoch)
    if not self.warmup_steps:
      return rate
    share = self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps
    return rate * jnp.minimum(share, 1.0)

  def _after_milestones(self, epoch: Array) -> Array:
    passed = [(epoch >= m).astype(jnp.float32) for m in self.milestones]
    if not self.factors:
      return self.lr * jnp.float32(self.factor) ** sum(passed, jnp.float32(0))
    powers = jnp.float32(self.factors) ** jnp.stack(passed)
    return self.lr * jnp.prod(powers)

  @property
  def _whole(self) -> Any:
    """The direction of what `clip` leaves of the gradients of `accumulate` steps."""
    direction = self.direction

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
      if self.clip:
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, self.clip / (norm + 1e-6)), grads)
      return direction.update(grads, state, params)

    clipped = optax.GradientTransformation(direction.init, update)
    return clipped if self.accumulate == 1 else optax.MultiSteps(clipped, self.accumulate)

  def init(self, params: Any) -> Any:
    """The first state; an average begins as a copy of the parameters."""
    state = self._first_state(params)
    return Averaged(state, jax.tree.map(np.array, params)) if self.ema else state

  def _first_state(self, params: Any) -> Any:
    # Ours start from zeros; numpy's need no compiled kernel for each parameter shape.
    shapes = jax.eval_shape(self._whole.init, params)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)

  def update(
    self, step: Array, grads: Any, opt_state: Any, params: Any, rate: Array | None = None
  ) -> tuple[Any, Any]:
    """-> (params, opt_state) after one update at the run's `step`, or at a given rate."""
    if not self.ema:
      return self._moved(step, grads, opt_state, params, rate)
    params, state = self._moved(step, grads, opt_state.state, params, rate)
    done = (step + 1) // self.accumulate
    decay = jnp.minimum(self.ema, (1 + done) / (10 + done)) if self.ema_warmup else self.ema
    share = 1 - decay if self.accumulate == 1 else (1 - decay) * (state.mini_step == 0)
    average = jax.tree.map(lambda a, p: a + share * (p - a), opt_state.params, params)
    return params, Averaged(state, average)

  def _moved(self, step: Array, grads: Any, opt_state: Any, params: Any, rate: Array | None) -> Any:
    updates, opt_state = self._whole.update(grads, opt_state, params)
    rate = self.rate(step) if rate is None else rate

    def moved(path, p, u):
      times = self.rate_factor(_text(path))
      return p if times == 0 else p - (rate if times == 1 else rate * times) * u

    return jax.tree_util.tree_map_with_path(moved, params, updates), opt_state

  def rate_factor(self, path: str) -> float:
    return _first(self.rates, path)

  def decay_factor(self, path: str) -> float:
    return _first(self.decays, path)

  def decayed(self, weight_decay: float) -> optax.GradientTransformation:
    """Adds the parameter times `weight_decay` and its factor; without a state."""
    if not weight_decay:
      return optax.identity()

    def add(path, u, p):
      decay = weight_decay * self.decay_factor(_text(path))
      return u + decay * p if decay else u

    return optax.stateless(lambda u, p: jax.tree_util.tree_map_with_path(add, u, p))


def _text(path: Any) -> str:
  return '/'.join(str(p.key) for p in path)


def _first(table: Table, path: str) -> float:
  return next((float(times) for pattern, times in table if re.search(pattern, path)), 1.0)


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
  """Adam with L2 decay added to the gradient, as torch.optim.Adam does."""

  b1: Decay = 0.9
  """Decay of the running mean of gradients."""
  b2: Decay = 0.999
  """Decay of the running mean of their squares."""
  eps: Annotated[float, Range(0.0, 1.0)] = 1e-8
  """Added to the root of that mean."""
  weight_decay: Rate = 0.0
  """Times the parameter, added to its gradient."""

  @property
  def direction(self) -> optax.GradientTransformation:
    return optax.chain(
      self.decayed(self.weight_decay), optax.scale_by_adam(self.b1, self.b2, self.eps)
    )


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
  """Adam whose decay is added after it (arXiv 1711.05101), as torch.optim.AdamW does."""

  weight_decay: Rate = 0.01
  """Times the parameter and the rate, subtracted from it."""

  @property
  def direction(self) -> optax.GradientTransformation:
    return optax.chain(
      optax.scale_by_adam(self.b1, self.b2, self.eps), self.decayed(self.weight_decay)
    )


# group -> (multiplies the rate, multiplies the decay)
GROUPS = {
  'old_weights': (1.0, 1.0),
  'old_biases': (2.0, 0.0),
  'new_weights': (10.0, 1.0),
  'new_biases': (20.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
  """Momentum with L2 decay added to the gradient, as torch.optim.SGD does, at a rate per group.

  `groups` is a table (pattern, group), the first that is found in a parameter's path naming its
  group in GROUPS: parts with pretrained weights learn slowly, new ones at ten times the rate,
  biases at twice their weights' and without decay. Without a table all are `old_weights`. The
  entry's `rates` and `decays` take its place.
  """

  momentum: Share = 0.9
  """Share of the step before that is kept."""
  weight_decay: Rate = 0.0
  """Times the parameter, added to its gradient."""
  groups: tuple[tuple[str, str], ...] = ()

  UNREAD = ('groups',)  # the net's

  def group(self, path: str) -> str:
    """Of a parameter such as 'backbone/stem_conv/kernel'."""
    return next((g for pattern, g in self.groups if re.search(pattern, path)), 'old_weights')

  def rate_factor(self, path: str) -> float:
    return _first(self.rates, path) if self.rates else GROUPS[self.group(path)][0]

  def decay_factor(self, path: str) -> float:
    return _first(self.decays, path) if self.decays else GROUPS[self.group(path)][1]

  @property
  def direction(self) -> optax.GradientTransformation:
    decayed = self.decayed(self.weight_decay)

    def update(grads, kept, params=None):
      grads, _ = decayed.update(grads, optax.EmptyState(), params)
      kept = jax.tree.map(lambda m, g: self.momentum * m + g, kept, grads)
      return kept, kept

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


@dataclasses.dataclass(frozen=True)
class Optax(Optimizer):
  """Any other optimizer of optax by its name, such as lion or lamb; the rate is this entry's."""

  function: str = 'lion'
  """Its name in optax."""
  arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Its arguments but for the learning rate."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.decays:
      raise UserError(
        "name='optax' knows no decays\n  use name='adamw' or 'sgd', or leave them out"
      )
    tree = {'kernel': np.zeros((2, 2), np.float32)}
    direction = self.direction
    try:
      state = jax.eval_shape(direction.init, tree)
      jax.eval_shape(direction.update, tree, state, tree)
    except Exception as e:
      raise UserError(
        f'optax.{self.function} makes no step of gradients and parameters: {e}'
      ) from None
    if any(jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in jax.tree.leaves(state)):
      raise UserError(f'optax.{self.function} keeps a random key, which no checkpoint holds')

  @property
  def direction(self) -> optax.GradientTransformation:
    known = [n for n in dir(optax) if n.islower() and n[0] != '_' and callable(getattr(optax, n))]
    if self.function not in known:
      near = nearest(self.function, known)
      raise UserError(f'optax has no optimizer {self.function!r}\n{near}')
    try:
      made = getattr(optax, self.function)(learning_rate=1.0, **self.arguments)
    except Exception as e:
      raise UserError(f'optax.{self.function}: {e}') from None
    return optax.chain(made, optax.scale(-1.0))

  def _first_state(self, params: Any) -> Any:
    return jax.device_get(jax.jit(self._whole.init)(params))


def optimizer(spec: Any, steps_per_epoch: int, net: Any = None) -> Optimizer:
  """A config entry such as dict(name='adam', lr=2e-4, milestones=(100, 300)) -> the optimizer.

  Without a name it is Adam. SGD's groups are the table GROUPS of `net`'s class, where there is one.
  """
  groups = tuple(getattr(net, 'GROUPS', ()))
  return registry.build('optimizer', spec, steps_per_epoch=steps_per_epoch, groups=groups)
