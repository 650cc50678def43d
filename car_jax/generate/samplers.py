"""From noise to latents by a net that predicts noise: DDIM, PNDM and DPM-Solver++ 2M.

A sampler is a list of timesteps, one for each evaluation of the net, and a step that is linear in
the latents and in the noise predicted now and before. Coefficients are computed in float64 and
rounded once; a step's number may be traced, so that a whole loop is one program. Letters: N
evaluations, S steps, T timesteps of training, a_t the product of 1 - beta up to t.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.typing import Array

Spacing = Literal['leading', 'trailing', 'linspace', 'genval']


@dataclasses.dataclass(frozen=True)
class NoiseSchedule:
  """How much noise a timestep has, and which timesteps S steps visit. As Stable Diffusion 1.x."""

  num_train_timesteps: int = 1_000
  beta_start: float = 0.00085
  beta_end: float = 0.012
  beta_schedule: Literal['scaled_linear', 'linear'] = 'scaled_linear'
  """scaled_linear: the betas' square roots are linear in t."""
  steps_offset: int = 1
  """Added to the timesteps of `leading`."""
  set_alpha_to_one: bool = False
  """Ends at no noise at all; if not, at that of timestep 0."""
  spacing: Spacing = 'leading'
  """leading: 0, T/S, .. and the offset; trailing: T - 1, T - 1 - T/S, ..; linspace: from 0 to T - 1
  with both; genval: range(0, T, T // S) + 1, which is S timesteps only where S divides T."""
  clip: float = 0.0
  """The largest value in a picture that DDIM predicts, of diffusion in pixels; 0 for no limit."""

  @property
  def betas(self) -> np.ndarray:
    """[T] float64"""
    root = np.sqrt if self.beta_schedule == 'scaled_linear' else np.asarray
    power = 2 if self.beta_schedule == 'scaled_linear' else 1
    ends = root(self.beta_start), root(self.beta_end)
    return np.linspace(*ends, self.num_train_timesteps) ** power

  @property
  def alphas_cumprod(self) -> np.ndarray:
    """[T] float64: a_t, the share of the signal in the variance."""
    return np.cumprod(1 - self.betas)

  def noised(self, latents: Array, noise: Array, timesteps: Any) -> Array:
    """latents and noise [B, ...], timesteps [B] or one -> latents with the noise of their times."""
    timesteps = jnp.asarray(timesteps)
    a = self.alphas_cumprod
    share = lambda table: jnp.asarray(table, jnp.float32)[timesteps].reshape(
      timesteps.shape + (1,) * ((latents.ndim - 1) if timesteps.ndim else 0)
    )
    return share(np.sqrt(a)) * latents + share(np.sqrt(1 - a)) * noise

  def timesteps(self, steps: int, *, without_last: bool = False) -> np.ndarray:
    """int32, descending; `without_last`: of one more step, and that of the least noise left out.

    That changes leading and linspace only. Raises UserError for numbers of steps that cannot be.
    """
    most = self.num_train_timesteps
    count = steps + (without_last and self.spacing in ('leading', 'linspace'))
    if not 1 <= steps <= count <= most:
      raise UserError(f'{steps} steps; from 1 to {most - (count - steps)} can be made')
    if self.spacing == 'genval':
      return self._genval(steps)
    if self.spacing == 'leading':
      timesteps = np.arange(count)[::-1] * float(most // count) + self.steps_offset
    elif self.spacing == 'trailing':
      timesteps = np.round(most - np.arange(count) * (most / count)) - 1
    else:
      timesteps = np.round(np.linspace(0, most - 1, count))[::-1]
    if timesteps[0] >= most:
      raise UserError(
        f'{steps} steps reach timestep {timesteps[0]:.0f}, where the last is {most - 1}\n'
        f'  an offset of {self.steps_offset} leaves no place for them; fewer steps do'
      )
    return timesteps[:steps].astype(np.int32)

  def _genval(self, steps: int) -> np.ndarray:
    """GenVal's rule (arXiv 2312.09231). Its code fails with an IndexError where this refuses."""
    most = self.num_train_timesteps
    works = lambda s: (-(-most // (most // s)) - 1) * (most // s) + 1 < most
    if not works(steps):
      near = min(filter(works, range(1, most + 1)), key=lambda s: abs(s - steps))
      raise UserError(
        f"{steps} steps by GenVal's rule, range(0, {most}, {most // steps}) + 1, reach timestep "
        f'{most}, where the last is {most - 1}\n  {near} steps work; spacing leading takes any'
      )
    return (np.arange(0, most, most // steps)[::-1] + 1).astype(np.int32)


class State(NamedTuple):
  """latents x [B, ...], and what a sampler remembers, [M, B, ...]."""

  x: Array
  memory: Array


class Sampler:
  """The protocol. timesteps [N] int32; `table` [N, ...] float32 arrays of coefficients."""

  timesteps: np.ndarray
  table: dict[str, np.ndarray]
  remembered: int = 0
  """How many arrays of the latents' shape go from step to step."""
  stochastic: bool = False
  """Whether steps take noise."""

  def start(self, x: Array) -> State:
    return State(x, jnp.zeros((self.remembered, *x.shape), x.dtype))

  def step(self, state: State, i: Any, eps: Array, noise: Array | None = None) -> State:
    """After evaluation `i`, counted from 0, which predicted the noise `eps` in state.x; `noise` is
    fresh, for samplers that are stochastic."""
    raise NotImplementedError

  def at(self, i: Any) -> dict[str, Array]:
    return {name: jnp.asarray(a)[i] for name, a in self.table.items()}


def _float32(**columns: Any) -> dict[str, np.ndarray]:
  return {name: np.asarray(a, np.float32) for name, a in columns.items()}


def last_of(timesteps: np.ndarray, steps: int, strength: float) -> np.ndarray:
  """The timesteps left to make from an image that has the noise of `strength` in (0, 1]; all at 1.

  Raises UserError where none is left.
  """
  left = int(steps * strength)
  if not 0 < strength <= 1 or left < 1:
    raise UserError(
      f'{steps} steps at strength {strength:g} leave none to make\n'
      f'  strength is at most 1 and, with {steps} steps, at least {1 / max(steps, 1):.2g}'
    )
  return timesteps if strength == 1 else timesteps[-left:]


class DDIM(Sampler):
  """Song et al., arXiv 2010.02502. eta 0 is deterministic, eta 1 as random as DDPM."""

  def __init__(
    self, schedule: NoiseSchedule, steps: int, *, strength: float = 1.0, eta: float = 0.0
  ):
    t = last_of(schedule.timesteps(steps), steps, strength)
    here, there = _alphas(schedule, t)
    deviation = eta * np.sqrt((1 - there) / (1 - here) * (1 - here / there))
    direction = np.sqrt(1 - there - deviation**2)
    scale = np.sqrt(there / here)
    self.timesteps, self.stochastic = t, eta > 0
    self.table = _float32(x=scale, eps=direction - scale * np.sqrt(1 - here), noise=deviation)
    self.clip = schedule.clip
    if self.clip:
      self.table |= _float32(alpha=np.sqrt(here), sigma=np.sqrt(1 - here))

  def step(self, state: State, i: Any, eps: Array, noise: Array | None = None) -> State:
    c = self.at(i)
    if self.clip:
      clean = (state.x - c['sigma'] * eps) / c['alpha']
      eps = (state.x - c['alpha'] * jnp.clip(clean, -self.clip, self.clip)) / c['sigma']
    x = c['x'] * state.x + c['eps'] * eps
    return state._replace(x=x if noise is None else x + c['noise'] * noise)


def _alphas(schedule: NoiseSchedule, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """a of timesteps t, and of those after each; after the last what the schedule ends at.

  The diffusers library goes T // S timesteps on instead, which for `linspace`, and `trailing` where
  S does not divide T, is not where the next evaluation believes to be.
  """
  a = schedule.alphas_cumprod
  end = 1.0 if schedule.set_alpha_to_one else a[0]
  return a[t], np.append(a[t[1:]], end)


class PNDM(Sampler):
  """Pseudo linear multistep (Liu et al., arXiv 2202.09778) without Runge-Kutta steps.

  The first step is made twice, S + 1 evaluations in all: the second evaluation, where the first has
  led, corrects it. With a strength below 1 the same holds for the first of the steps left; the
  diffusers library counts on as if it had been made, and then takes two timesteps for one.
  """

  remembered = 4  # the noise of three evaluations before, and the latents before the first step

  def __init__(self, schedule: NoiseSchedule, steps: int, *, strength: float = 1.0):
    t = last_of(schedule.timesteps(steps), steps, strength)
    here, there = _alphas(schedule, t)
    again = np.array([0, 0, *range(1, len(t))] if len(t) > 1 else [0])  # the step of evaluation i
    self.timesteps = np.array([*t[:2], *t[1:]] if len(t) > 1 else t, np.int32)
    here, there = here[again], there[again]
    divisor = here * np.sqrt(1 - there) + np.sqrt(here * (1 - here) * there)
    adams = [(1, 0, 0, 0), (1 / 2, 1 / 2, 0, 0), (3 / 2, -1 / 2, 0, 0)]
    adams += [tuple(np.array([23, -16, 5, 0]) / 12)]
    adams += [tuple(np.array([55, -59, 37, -9]) / 24)] * len(again)
    self.table = _float32(
      x=np.sqrt(there / here), eps=(here - there) / divisor, weights=adams[: len(again)]
    )

  def step(self, state: State, i: Any, eps: Array, noise: Array | None = None) -> State:
    c, (*past, first) = self.at(i), state.memory
    mean = sum(w * e for w, e in zip(c['weights'], (eps, *past), strict=True))
    i = jnp.asarray(i)
    base = jnp.where(i == 1, first, state.x)
    x = c['x'] * base + c['eps'] * mean
    recent = jnp.stack([eps, *past[:2]])
    recent = jnp.where(i == 1, jnp.stack(past), recent)  # the correction is not remembered
    first = jnp.where(i == 0, state.x, first)
    return State(x, jnp.concatenate([recent, first[None]]))


class DPMSolver(Sampler):
  """DPM-Solver++ 2M, the midpoint rule (Lu et al., arXiv 2211.01095), to sigma 0 by one of order 1.

  Of the spacings leading and linspace its timesteps are those of S + 1 steps without the last.
  """

  remembered = 1  # the picture predicted before

  def __init__(self, schedule: NoiseSchedule, steps: int, *, strength: float = 1.0):
    t = schedule.timesteps(steps, without_last=True)
    self.timesteps = last_of(t, steps, strength)
    a = schedule.alphas_cumprod[self.timesteps]
    alpha, sigma = np.append(np.sqrt(a), 1.0), np.append(np.sqrt(1 - a), 0.0)
    with np.errstate(divide='ignore'):
      rate = np.log(alpha) - np.log(sigma)  # of signal to noise; infinite at the end
    step = np.diff(rate)
    gain = -alpha[1:] * np.expm1(-step)
    ratio = np.zeros(len(a))  # of half the last two steps' lengths; 0 is a step of order 1
    ratio[1:-1] = 0.5 * step[1:-1] / step[:-2]
    self.table = _float32(
      alpha=alpha[:-1],
      sigma=sigma[:-1],
      x=sigma[1:] / sigma[:-1],
      now=gain * (1 + ratio),
      before=-gain * ratio,
    )

  def step(self, state: State, i: Any, eps: Array, noise: Array | None = None) -> State:
    c = self.at(i)
    clean = (state.x - c['sigma'] * eps) / c['alpha']
    x = c['x'] * state.x + c['now'] * clean + c['before'] * state.memory[0]
    return State(x, clean[None])


SAMPLERS: dict[str, type[Sampler]] = {'ddim': DDIM, 'pndm': PNDM, 'dpmpp_2m': DPMSolver}


def guided(eps: Array, scale: float | Array) -> Array:
  """Classifier-free guidance: eps [2 B, ...], first without the text, then with it -> [B, ...]."""
  without, given = jnp.split(eps, 2)
  return without + scale * (given - without)


def denoised(
  sampler: Sampler,
  predict: Callable[[Array, Array], Array],
  x: Array,
  noise: Callable[[Array], Array] | None = None,
  keep: bool = False,
) -> Array:
  """Latents x [B, ...] after all steps, or with `keep` after each, [N, B, ...]. Made for jit.

  predict(x, timestep) is the noise in x; noise(i) that which a stochastic sampler's step i adds.
  """
  if sampler.stochastic and noise is None:
    raise ValueError('a stochastic sampler takes noise')
  times = jnp.asarray(sampler.timesteps)

  def evaluate(state: State, i: Array) -> State:
    eps = predict(state.x, times[i])
    return sampler.step(state, i, eps, noise(i) if noise is not None else None)

  def kept(state: State, i: Array) -> tuple[State, Array]:
    state = evaluate(state, i)
    return state, state.x

  if keep:
    return jax.lax.scan(kept, sampler.start(x), jnp.arange(len(times)))[1]
  return jax.lax.fori_loop(0, len(times), lambda i, s: evaluate(s, i), sampler.start(x)).x
