"""CAR on one-dimensional regression (arXiv 2006.13144, section 5.1): the idea without the pixels.

First a calibration net F learns E[y | x] alone. Then F is frozen and a generator G(x, F(x), noise)
and a discriminator D(x, y) play; the calibration loss holds the mean of several draws at F(x), so
that G reaches both branches as often as the data do. Without it (weight 0) G may drop one.

Letters: B points, N draws per point. See data/toy_regression.py for the data and batch keys.

The published code draws 1000 points per step in the first phase and 100 in the second. Here every
batch has the size of the first phase and the second uses its first rows: the points of a batch are
independent and in random order, so both phases see the same law as there. Each phase's Adam starts
at its own first update, as there.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.data import toy_regression
from car_jax.errors import UserError
from car_jax.methods.base import Batch, Logs, Method
from car_jax.methods.train_state import TrainState, create
from car_jax.nn.mlp import MLP
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Count, Dtype, Optim, Positive, Weight, Width
from car_jax.typing import Array


class State(flax.struct.PyTreeNode):
  """The three nets, and the log likelihood of the latest look at G."""

  step: Array
  calnet: TrainState
  generator: TrainState
  discriminator: TrainState
  log_likelihood: Array


@dataclasses.dataclass(frozen=True)
class CARToy(Method):
  """Raises UserError on `init` for a batch smaller than `refine_batch`."""

  calibration_steps: Count = 1500
  """Steps in which the calibration net alone learns."""
  refine_batch: Positive = 100
  """Points of a batch that the generator learns from."""
  calibration_weight: Weight = 1.0
  """Weight of the loss that pulls the samples' mean onto the calibration net's."""
  samples: Positive = 10
  """Samples of a point where there is a calibration loss; else 1."""
  hidden: tuple[Width, ...] = (64, 64, 64, 64)
  """Widths of the hidden layers of all three nets."""
  dtype: Dtype = None
  """What the nets compute in; parameters and losses are float32."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adam', lr=1e-4))
  """The optimizer of all three nets."""
  ll_every: Positive = 10
  """Steps between two looks at the generator's likelihood."""
  ll_points: Positive = 2000
  """Points of such a look."""

  step_options = ('calibration_steps',)

  def _net(self, which: str) -> Any:
    return MLP((*self.hidden, 1), 0.0 if which == 'calnet' else 0.01, self.dtype)

  @property
  def _optimizer(self) -> Optimizer:
    return optimizer(self.optim, 1)

  @property
  def draws(self) -> int:
    return self.samples if self.calibration_weight > 0 else 1

  def init(self, seed: int, batch: Batch) -> State:
    if len(batch['x']) < self.refine_batch:
      raise UserError(
        f'method.refine_batch is {self.refine_batch}, but a batch has {len(batch["x"])} points\n'
        f'  use --config.data.batch={self.refine_batch} or more'
      )
    inputs = dict(calnet=1, generator=3, discriminator=2)
    # A seed of its own for each net: equal layers would otherwise start equal.
    nets = {
      which: create(self._net(which), self._optimizer, 3 * seed + k, np.zeros((1, size)))
      for k, (which, size) in enumerate(inputs.items())
    }
    return State(step=np.int32(0), log_likelihood=np.float32(np.log(toy_regression.FLOOR)), **nets)

  def predict_mean(self, params: Any, x: Array) -> Array:
    """F: x [B] -> [B]"""
    return self._net('calnet').apply({'params': params}, x[:, None])[:, 0]

  def generate(self, params: Any, x: Array, mean: Array, noise: Array) -> Array:
    """G: x, mean = F(x) [B], noise [B, N] -> samples [B, N]"""
    wide = lambda v: jnp.broadcast_to(v[:, None], noise.shape)
    inputs = jnp.stack([wide(x), wide(mean), noise], -1).reshape(-1, 3)
    return self._net('generator').apply({'params': params}, inputs).reshape(noise.shape)

  def judge(self, params: Any, x: Array, y: Array) -> Array:
    """D: x [B], y [B, N] -> logits [B, N] that y is real."""
    pairs = jnp.stack([jnp.broadcast_to(x[:, None], y.shape), y], -1).reshape(-1, 2)
    return self._net('discriminator').apply({'params': params}, pairs).reshape(y.shape)

  def calnet_loss(self, params: Any, x: Array, y: Array) -> Array:
    """-log N(y; F(x), 1), averaged: its minimum is F(x) = E[y | x]."""
    error = y - self.predict_mean(params, x)
    return jnp.mean(0.5 * jnp.square(error)) + 0.5 * np.log(2 * np.pi)

  def discriminator_loss(self, params: Any, x: Array, y: Array, fake: Array) -> Array:
    """x, y, fake [B]: binary cross entropy of real and of fake points, added."""
    real, fake = (self.judge(params, x, v[:, None]) for v in (y, fake))
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))

  def generator_loss(
    self, params: Any, discriminator: Any, x: Array, mean: Array, noise: Array
  ) -> tuple[Array, Logs]:
    """Fooling D, plus half the squared distance of the mean of N draws to F(x), noise [B, N]."""
    y = self.generate(params, x, mean, noise)
    adversarial = jnp.mean(jax.nn.softplus(-self.judge(discriminator, x, y)))
    gap = jnp.mean(y, axis=1) - mean
    calibration = self.calibration_weight * 0.5 * jnp.mean(jnp.square(gap))
    return adversarial + calibration, {
      'loss/adversarial': adversarial,
      'loss/calibration': calibration,
    }

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    """F's update, or D's and then G's. The losses of the phase that is not running are logged as 0.

    `log_likelihood` is G's before the update, looked at in every `ll_every`-th step of the second
    phase, its first included, and repeated until the next look: with config.log_every = ll_every a
    record holds one look. Before the first one it is the floor.
    """
    phase = state.step < self.calibration_steps
    return jax.lax.cond(phase, self._calibrate, self._refine, state, batch, rng)

  def _calibrate(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    loss, grads = jax.value_and_grad(self.calnet_loss)(state.calnet.params, batch['x'], batch['y'])
    state = state.replace(step=state.step + 1, calnet=self._descend(state, 'calnet', grads))
    return state, self._logs(state, {'loss/calnet': loss})

  def _refine(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    x, y = batch['x'][: self.refine_batch], batch['y'][: self.refine_batch]
    d_key, g_key, look_key = jax.random.split(rng, 3)
    at = state.step - self.calibration_steps
    look = lambda s: self.look(s, look_key, batch['pi'][0], batch['sigma'][0])
    log_likelihood = jax.lax.cond(at % self.ll_every == 0, look, lambda s: s.log_likelihood, state)

    mean = self.predict_mean(state.calnet.params, x)
    noise = jax.random.normal(d_key, (len(x), 1))
    fake = self.generate(state.generator.params, x, mean, noise)[:, 0]
    loss, grads = jax.value_and_grad(self.discriminator_loss)(
      state.discriminator.params, x, y, fake
    )
    state = state.replace(discriminator=self._descend(state, 'discriminator', grads))
    noise = jax.random.normal(g_key, (len(x), self.draws))
    grads, logs = jax.grad(self.generator_loss, has_aux=True)(
      state.generator.params, state.discriminator.params, x, mean, noise
    )
    generator = self._descend(state, 'generator', grads)
    state = state.replace(step=state.step + 1, generator=generator, log_likelihood=log_likelihood)
    return state, self._logs(state, logs | {'loss/discriminator': loss})

  def look(self, state: State, rng: Array, pi: Array, sigma: Array) -> Array:
    """Mean exact log likelihood of one draw of G at each of `ll_points` new x."""
    place, noise = jax.random.split(rng)
    x = jax.random.uniform(place, (self.ll_points,))
    mean = self.predict_mean(state.calnet.params, x)
    noise = jax.random.normal(noise, (self.ll_points, 1))
    y = self.generate(state.generator.params, x, mean, noise)[:, 0]
    return jnp.mean(toy_regression.log_likelihood(x, y, pi, sigma))

  def _descend(self, state: State, which: str, grads: Any) -> TrainState:
    old = getattr(state, which)
    return old.apply_gradients(self._optimizer, state.step, grads, old.batch_stats)

  def _logs(self, state: State, logs: Logs) -> Logs:
    names = ('calnet', 'discriminator', 'adversarial', 'calibration')
    return {f'loss/{k}': jnp.float32(logs.get(f'loss/{k}', 0)) for k in names} | {
      'log_likelihood': state.log_likelihood
    }

  def predictors(self) -> dict[str, Any]:
    return {}  # nothing to segment
