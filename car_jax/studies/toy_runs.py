"""Many runs of `car_toy` at once: the method's own step under vmap over runs and scan over steps.

Letters: R runs, W weights of the calibration loss, T looks at G.
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.data import toy_regression
from car_jax.methods.car_toy import CARToy, State
from car_jax.typing import Array

WEIGHTS = (1.0, 0.0)
AT = 0.2  # where the branches' shares are counted
CHUNK = 250  # steps per call: between two calls a run can be stopped and the progress told
# All runs take the same step, so that the choice of the phase stays a choice under vmap.
ALONG: Any = 0
AXES = State(None, calnet=ALONG, generator=ALONG, discriminator=ALONG, log_likelihood=ALONG)


class Stopped(Exception):
  """Another thread asked to stop."""


class Runs:
  """Trains R runs that differ in law and seed; compiled once and shared by threads.

  A run's F is trained once and serves every weight. What a run draws depends on its seed alone.
  """

  def __init__(self, calibration_steps: int, steps: int, progress: Callable[[int], None]):
    self.methods = {
      w: CARToy(calibration_steps=calibration_steps, calibration_weight=w) for w in WEIGHTS
    }
    self.steps, self.progress, self.stop = steps, progress, threading.Event()
    method = self.methods[WEIGHTS[0]]
    self._first = _advance(method, points=1000)
    self._second = {w: _advance(m, points=m.refine_batch) for w, m in self.methods.items()}
    self._look = jax.jit(jax.vmap(method.look, (AXES, 0, 0, 0)))
    self._measure = jax.jit(jax.vmap(_measure(method), (AXES, 0, 0, 0)))

  def train(
    self, laws: Sequence[tuple[float, float]], seeds: Sequence[int]
  ) -> tuple[dict[str, np.ndarray], list[State]]:
    """(pi, sigma) and a seed for each run -> numbers, and each weight's final states.

    step [T]: G's updates before each look; log_likelihood [W, R, T]; upper [W, R], the share of
    G's draws above 0 at x = 0.2; mean [R], F there; nll [R], F's loss on new points.
    """
    method = self.methods[WEIGHTS[0]]
    singles = [method.init(seed, {'x': jnp.zeros(1000)}) for seed in seeds]
    state = jax.tree.map(lambda *leaves: np.stack(leaves), *singles).replace(step=jnp.int32(0))
    pi, sigma = (jnp.array(values, jnp.float32) for values in zip(*laws, strict=True))
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    state, _ = self._go(self._first, method.calibration_steps, state, keys, pi, sigma)
    curves, states, measured = [], [], []
    for weight, method in self.methods.items():
      end, looks = self._go(self._second[weight], self.steps, state, keys, pi, sigma)
      last = self._look(end, keys, pi, sigma)
      looks = np.concatenate([looks[:: method.ll_every], last[None]])
      curves.append(looks.T)
      states.append(end)
      measured.append(jax.device_get(self._measure(end, keys, pi, sigma)))
    numbers = dict(
      step=np.arange(len(curves[0].T)) * method.ll_every,
      log_likelihood=np.stack(curves),
      upper=np.stack([m['upper'] for m in measured]),
      mean=measured[0]['mean'],
      nll=measured[0]['nll'],
    )
    return numbers, states

  def _go(self, advance, steps, state, keys, pi, sigma) -> tuple[State, np.ndarray]:
    looks = [np.zeros((0, len(pi)), np.float32)]
    for start in range(0, steps, CHUNK):
      if self.stop.is_set():
        raise Stopped
      length = min(CHUNK, steps - start)
      state, part = advance(state, keys, pi, sigma, length)
      looks.append(np.asarray(part))
      self.progress(length * len(pi))
    return state, np.concatenate(looks)


def _advance(method: CARToy, points: int) -> Any:
  """jitted (state, keys, pi, sigma [R], length) -> state, log likelihood [length, R]."""

  def one(state: State, key: Array, pi: Array, sigma: Array):
    data, rng = jax.random.split(jax.random.fold_in(key, state.step))
    batch = toy_regression.as_batch(*toy_regression.draw(data, points, pi, sigma), pi, sigma)
    return method.step(state, batch, rng)

  def steps(state: State, keys: Array, pi: Array, sigma: Array, length: int):
    def body(state, _):
      state, logs = jax.vmap(one, (AXES, 0, 0, 0), (AXES, 0))(state, keys, pi, sigma)
      return state, logs['log_likelihood']

    return jax.lax.scan(body, state, length=length)

  return jax.jit(steps, static_argnums=4)


def _measure(method: CARToy, points: int = 20_000) -> Any:
  def measure(state: State, key: Array, pi: Array, sigma: Array) -> dict[str, Array]:
    data, noise = jax.random.split(jax.random.fold_in(key, state.step))
    here = jnp.array([AT])
    mean = method.predict_mean(state.calnet.params, here)
    noise = jax.random.normal(noise, (1, points))
    drawn = method.generate(state.generator.params, here, mean, noise)
    x, y = toy_regression.draw(data, points, pi, sigma)
    nll = method.calnet_loss(state.calnet.params, x, y)
    return dict(upper=jnp.mean(drawn > 0), mean=mean[0], nll=nll)

  return measure


def portrait(
  runs: Runs, law: tuple[float, float], seeds: Sequence[int], *, points=200, means=100, draws=1000
) -> dict[str, np.ndarray]:
  """What figure 1 shows of R runs of a law, besides the numbers of `Runs.train`.

  data_x, data_y: 10,000 points; x [200] with F, f [R, 200], and one draw of G, sample [W, R, 200];
  mean_x [100] with the mean of 1000 draws, sample_mean [W, R, 100]; D's probability of being real,
  judged [W, R, 121, 101] on grid_y [121] x grid_x [101].
  """
  numbers, states = runs.train([law] * len(seeds), seeds)
  data_x, data_y = toy_regression.sample(np.random.RandomState(seeds[0]), 10_000, *law)
  rng = np.random.default_rng(seeds[0])
  x, mean_x = np.sort(rng.uniform(size=points)), np.linspace(0, 1, means)
  grid_x, grid_y = np.linspace(0, 1, 101), np.linspace(-0.6, 0.6, 121)
  noise, many = rng.standard_normal((points, 1)), rng.standard_normal((means, draws))
  levels = np.broadcast_to(grid_y, (len(grid_x), len(grid_y)))

  def look(method: CARToy, state: State) -> dict[str, Array]:
    f = lambda at: method.predict_mean(state.calnet.params, jnp.asarray(at))
    g = lambda at, z: method.generate(state.generator.params, jnp.asarray(at), f(at), z)
    judged = method.judge(state.discriminator.params, jnp.asarray(grid_x), levels)
    return dict(
      f=f(x),
      sample=g(x, noise)[:, 0],
      sample_mean=g(mean_x, many).mean(1),
      judged=jax.nn.sigmoid(judged).T,
    )

  seen = [
    jax.vmap(functools.partial(look, method), (AXES,))(state)
    for method, state in zip(runs.methods.values(), states, strict=True)
  ]
  drawn = {k: np.stack([s[k] for s in seen]) for k in ('sample', 'sample_mean', 'judged')}
  fixed = dict(data_x=data_x, data_y=data_y, x=x, mean_x=mean_x, grid_x=grid_x, grid_y=grid_y)
  single = {k: np.asarray(v, np.float32) for k, v in (fixed | drawn).items()}
  return numbers | single | dict(f=np.asarray(seen[0]['f']), seeds=np.array(seeds))
