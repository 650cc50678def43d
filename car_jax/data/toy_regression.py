"""The one-dimensional bimodal data of CAR (arXiv 2006.13144, section 5.1): points, exact answers.

x is uniform on [0, 1). With probability pi a point lies on the upper branch +h(x), otherwise on the
lower one -h(x), plus normal noise of deviation sigma. Letters: B points.

  h(x) = 1/2 for x < 0.4,   1 - 1.25 x for x < 0.8,   0 beyond: there the branches are one.
"""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import options
from car_jax.data import pipeline
from car_jax.data.options import Data
from car_jax.data.sources import DataInfo, Dataset, Stream
from car_jax.errors import UserError, nearest
from car_jax.options import Positive, Range, Share
from car_jax.typing import Array

FLOOR = 1e-11  # added to the density, so that no log likelihood is below log 1e-11 = -25.33


def height(x: Array) -> Array:
  """Half the distance of the branches at x [B]."""
  return jnp.where(x < 0.4, 0.5, jnp.where(x < 0.8, 1 - 1.25 * x, 0.0))


def log_likelihood(x: Array, y: Array, pi: Array | float, sigma: Array | float) -> Array:
  """log(p(y | x) + 1e-11) for x, y [B]. Between -25.33 and log p at a branch's middle."""

  def density(centre):
    return jnp.exp(-0.5 * jnp.square((y - centre) / sigma)) / (sigma * np.sqrt(2 * np.pi))

  h = height(x)
  return jnp.log(pi * density(h) + (1 - pi) * density(-h) + FLOOR)


def sample(
  rng: np.random.RandomState, batch: int, pi: float, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
  """x, y [B] float64, drawn in the order of the published code, which groups the points.

  They come as: all x < 0.4, then the upper points of 0.4 <= x < 0.8, then its lower ones, then the
  rest. So a part of a batch is no fair draw unless shuffled.
  """
  x = rng.uniform(size=batch)
  left, middle, right = x[x < 0.4], x[(x >= 0.4) & (x < 0.8)], x[x >= 0.8]
  share = [pi, 1 - pi]
  left_y = rng.choice([0.5, -0.5], size=len(left), p=share) + sigma * rng.standard_normal(len(left))
  is_upper = rng.choice([True, False], size=len(middle), p=share)
  upper, lower = middle[is_upper], middle[~is_upper]
  upper_y = 1 - 1.25 * upper + sigma * rng.standard_normal(len(upper))
  lower_y = 1.25 * lower - 1 + sigma * rng.standard_normal(len(lower))
  right_y = sigma * rng.standard_normal(len(right))
  xs = np.concatenate([left, upper, lower, right])
  return xs, np.concatenate([left_y, upper_y, lower_y, right_y])


def draw(rng: Array, batch: int, pi: Array | float, sigma: Array | float) -> tuple[Array, Array]:
  """x, y [B] from the same law, on the device and in random order."""
  place, side, noise = jax.random.split(rng, 3)
  x = jax.random.uniform(place, (batch,))
  sign = jnp.where(jax.random.uniform(side, (batch,)) < pi, 1.0, -1.0)
  return x, sign * height(x) + sigma * jax.random.normal(noise, (batch,))


def as_batch(x: Any, y: Any, pi: Any, sigma: Any) -> dict[str, Any]:
  """What the method `car_toy` takes: x, y [B], and the law of each point, pi and sigma [B].

  The law travels with the points, so that the exact likelihood is that of the data.
  """
  wide = lambda value: jnp.broadcast_to(jnp.float32(value), np.shape(x))
  return dict(x=x, y=y, pi=wide(pi), sigma=wide(sigma))


@dataclasses.dataclass(frozen=True)
class Fresh(Stream):
  """Batches of new points in every step; nothing is ever seen twice.

  Batch k is a function of (seed, k) alone, and shuffled: its first rows are a fair draw.
  """

  batch: int
  pi: float
  sigma: float

  def __len__(self) -> int:
    return self.batch  # of an endless stream; what the loop calls an epoch is one step

  def train_batches(
    self, *, seed: int, start_step: int = 0, host: int = 0, hosts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """This host's rows of batches start_step, start_step + 1, ... as float32."""
    pipeline.check_shared(self.batch, hosts)
    local = self.batch // hosts
    step = start_step
    while True:
      rng = np.random.RandomState([seed % 2**32, step])
      x, y = sample(rng, self.batch, self.pi, self.sigma)
      mine = rng.permutation(self.batch)[host * local : (host + 1) * local]
      law = {k: np.full(local, getattr(self, k), np.float32) for k in ('pi', 'sigma')}
      yield dict(x=x[mine].astype(np.float32), y=y[mine].astype(np.float32), **law)
      step += 1


@dataclasses.dataclass(frozen=True)
class ToyRegression(Data):
  """The data set as config.data names it."""

  batch: Positive = 1000
  """Points in a step of training."""
  pi: Share = 0.9
  """How much lies on the upper branch."""
  sigma: Annotated[float, Range(1e-6, 1e3)] = 0.03
  """Deviation of the noise."""

  UNREAD = options.keys_but(Data, 'batch', 'train', 'eval_batch')

  def records(self) -> Dataset:
    info = DataInfo('toy_regression', 0, (), (), 0, citation='arXiv 2006.13144, section 5.1')

    def split(name: str) -> Fresh:
      if name != 'train':
        raise UserError(f'toy_regression has no split {name!r}\n{nearest(name, ["train"])}')
      return Fresh(self.batch, self.pi, self.sigma)

    return Dataset(info, split)
