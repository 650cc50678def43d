"""What tests of methods share that look whether they learn."""

import jax
import numpy as np

KEY = jax.random.key(0)


def trained(method, batch, loss, steps=8):
  """-> the state after some steps on one batch, and each step's loss."""
  state, step, losses = method.init(0, batch), jax.jit(method.step), []
  for k in range(steps):
    state, logs = step(state, batch, jax.random.key(k))
    losses.append(float(logs[loss]))
  return state, losses


def check_it_learns(method, batch, loss, share):
  """Two images: the loss falls below a share of its start; three samples of each image are then its
  label, mostly, and do not depend on the batch."""
  state, losses = trained(method, batch, loss, steps=60)
  assert np.mean(losses[-10:]) < share * np.mean(losses[:5])
  predict = jax.jit(method.predictors()['samples'], static_argnums=3)
  both = predict(state, batch, KEY, 3)
  second = predict(state, {k: v[1:] for k, v in batch.items()}, KEY, 3)
  np.testing.assert_array_equal(both.probs[1:], second.probs)
  assert set(np.unique(both.probs)) == {0, 1}
  assert (np.argmax(both.probs, -1) == batch['label'][:, None]).mean() > 0.9
