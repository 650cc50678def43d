"""Evaluation where images are predicted at another size than that of their labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.evaluate import cost, predict
from car_jax.methods.base import Sampler, Samples
from car_jax.methods.mixture import Member, Mixture
from car_jax.nn.resize import resize_bilinear
from tests import small

KEY = jax.random.key(0)


def batch():
  rng = np.random.default_rng(0)
  return dict(
    image=rng.uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32),
    labels=rng.integers(0, 2, (2, 1, 32, 60)),
    label_weight=np.ones((2, 1), np.float32),
    example=np.uint32([3, 4]),
  )


@pytest.mark.parametrize('name', ['ssn', 'car', 'mose', 'ccdm'])
def test_samples_have_the_size_of_labels(name):
  one = small.loaded(small.get_config(name))
  for draw in one.method.predictors().values():
    run = lambda state, b, draw=draw: predict.predict(draw, 2, 2, None, state, b, KEY)
    out = jax.eval_shape(run, one.state, batch())
    assert out.labels.shape == (2, 2, 32, 60)
    assert out.mean.shape[:3] == (2, 32, 60)


def test_class_probabilities_are_resized_not_labels():
  b = batch()
  low = jax.random.uniform(KEY, (2, 1, 16, 24, 2))
  probs = low / low.sum(-1, keepdims=True)
  draw = lambda state, batch, rng, n: Samples(probs, jnp.ones((2, 1)), probs[:, 0])
  out = predict.predict(Sampler(draw), 1, 1, None, None, b, KEY)
  want = resize_bilinear(probs[:, 0], (32, 60), align_corners=False)
  np.testing.assert_allclose(out.mean, want, atol=1e-6)
  np.testing.assert_allclose(out.own, want, atol=1e-6)
  np.testing.assert_array_equal(out.labels[:, 0], np.argmax(want, -1))


def test_an_ignored_class_is_seen_by_the_net_at_the_size_of_its_image():
  b = batch()
  b['labels'] = np.repeat(np.repeat(np.arange(2)[None, None, :, None], 16, 2), 60, 3)
  b['labels'] = np.broadcast_to(b['labels'], (2, 1, 32, 60))
  seen = []

  def draw(state, batch, rng, n):
    seen.append(np.asarray(batch['label']))
    probs = jnp.broadcast_to(jnp.array([0.5, 0.3, 0.2]), (2, 1, 16, 24, 3))
    return Samples(probs, jnp.ones((2, 1)))

  out = predict.predict(Sampler(draw), 1, 1, 1, None, b, KEY)
  assert seen[0].shape == (2, 16, 24)
  assert (seen[0][:, :8] == -1).all()
  assert (seen[0][:, 8:] == 1).all()
  np.testing.assert_array_equal(out.labels[:, 0], (b['labels'][:, 0] == 1).astype(int))


def test_members_with_logits_and_without_go_together():
  runs = [small.loaded(small.get_config(name)) for name in ('supervised', 'ssn')]
  method = Mixture('ensemble', [Member(one.method, k) for k, one in enumerate(runs)])
  (draw,) = method.predictors().values()
  run = lambda state, b: predict.predict(draw, 4, 4, None, state, b, KEY)
  out = jax.eval_shape(run, tuple(one.state for one in runs), batch())
  assert out.labels.shape == (2, 4, 32, 60)


def test_what_a_prediction_costs_is_counted_at_the_size_of_its_image():
  """Of a net that reads another model's prediction, which has the labels' size."""
  c = small.get_config('ssn')
  c.method.black_box = 'number'
  one = small.loaded(c)
  b = batch() | dict(black_box=np.zeros((2, 32, 60), np.int32), valid=np.ones(2, bool))
  row = predict.subjects(one.method, one.state)[0]
  whole = cost.of(row, b, None).flops[1]
  fewer = cost.of(row, b | dict(image=b['image'][:, :8]), None).flops[1]
  assert 0.3 * whole < fewer < 0.7 * whole
