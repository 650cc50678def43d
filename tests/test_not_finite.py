"""Losses and nets that are not finite end a training, and no checkpoint has them."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import config as configs
from car_jax import lookup, loop, saved_steps
from car_jax.errors import UserError
from car_jax.methods.base import Method
from car_jax.methods.train_state import Frozen


class State(flax.struct.PyTreeNode):
  step: jax.Array
  net: Frozen


@dataclasses.dataclass(frozen=True)
class Diverging(Method):
  """Its loss is nan at one step, and its net after another."""

  num_classes: int
  loss: int = -1
  net: int = -1

  def init(self, seed, batch):
    return State(np.int32(0), Frozen({'w': np.ones(3, np.float32)}, {}))

  def step(self, state, batch, rng):
    nan_at = lambda step: jnp.where(state.step + 1 == step, jnp.nan, 1.0)
    net = state.net.replace(params={'w': state.net.params['w'].at[1].set(nan_at(self.net))})
    return State(state.step + 1, net), {'loss/fine': jnp.float32(1), 'loss/odd': nan_at(self.loss)}

  def predictors(self):
    return {}


@pytest.mark.parametrize(
  ('broken', 'message', 'kept'),
  [
    (dict(loss=5), 'loss/odd is nan at step 5', 4),
    (dict(net=4), 'net/params/w is not finite after step 4', 2),
  ],
)
def test_what_broke_is_named_and_the_last_good_step_is_kept(
  broken, message, kept, tmp_path, monkeypatch
):
  monkeypatch.setitem(lookup.METHODS, 'diverging', f'{__name__}:Diverging')
  c = configs.load('configs/smoke.py:supervised')
  c.unlock()
  c.method = dict(name='diverging') | broken
  c.evals, c.best, c.steps, c.save_every, c.images = {}, '', 6, 2, 0
  with pytest.raises(UserError, match=message):
    loop.train(configs.complete(c), tmp_path / 'run')
  assert saved_steps.locate(tmp_path / 'run')[1] == kept
