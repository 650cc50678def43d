"""What predictions cost, against nets whose parameters and operations are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.evaluate import cost
from car_jax.evaluate.predict import Subject
from car_jax.methods.base import Samples
from car_jax.methods.baselines import uniform
from car_jax.methods.train_state import Frozen

SIDE, WIDTH, LATENT, CLASSES = 16, 24, 8, 3
RNG = np.random.default_rng(0)
BATCH = {'image': np.zeros((5, SIDE, SIDE, 3), np.float32), 'example': np.zeros(5, np.uint32)}


def array(*shape):
  return RNG.normal(size=shape).astype(np.float32)


STATE = Frozen(
  params=dict(body=array(3, WIDTH), head=array(WIDTH + LATENT, CLASSES), critic=array(7, 7)),
  batch_stats=dict(mean=array(WIDTH)),
)


def drawing(loop):
  """Samples of pixels' features, once for an image, and a latent each, by turns or at once."""

  def predict(state, batch, rng, n):
    of = state.params
    features = batch['image'] @ of['body'] - state.batch_stats['mean']
    one = jnp.broadcast_to(features[:, None], (len(features), 1, *features.shape[1:]))

    def decoded(z):  # [N, D]
      size = (len(features), len(z), SIDE, SIDE)
      joined = jnp.concatenate(
        [
          jnp.broadcast_to(one, (*size, WIDTH)),
          jnp.broadcast_to(z[:, None, None], (*size, LATENT)),
        ],
        -1,
      )
      return jax.nn.softmax(joined @ of['head'])

    z = jax.random.normal(rng, (n, LATENT))
    if loop:
      turns = jax.lax.map(lambda part: decoded(part[None])[:, 0], z)
      return Samples(jnp.moveaxis(turns, 0, 1), uniform(len(features), n))
    return Samples(decoded(z), uniform(len(features), n))

  return predict


@pytest.mark.parametrize('loop', [False, True])
def test_operations_are_those_of_the_products_however_samples_are_made(loop):
  counted = cost.of(Subject('it', drawing(loop), STATE), BATCH, None, 0.25)
  pixels = SIDE**2
  encoder = 2 * pixels * 3 * WIDTH
  decoder = 2 * pixels * (WIDTH + LATENT) * CLASSES
  few = pixels * (WIDTH + 15 * CLASSES)  # less the mean, softmax: no products
  assert encoder + decoder <= counted.flops[1] <= encoder + decoder + few + 5000
  grown = (counted.flops[100] - counted.flops[1]) / 99
  assert decoder <= grown <= decoder + few
  assert counted.seconds == 0.25


def test_parameters_are_those_that_the_prediction_reads():
  counted = cost.of(Subject('it', drawing(False), STATE), BATCH, None)
  assert counted.parameters == 3 * WIDTH + (WIDTH + LATENT) * CLASSES  # no critic, no statistics
  assert np.isnan(counted.seconds)
