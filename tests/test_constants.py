"""Arrays that a run reads and no checkpoint holds, by a method whose constant lies in a file."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from car_jax import checkpoints, lookup, loop
from car_jax import config as configs
from car_jax.constants import Constants, constants, digests, filled, without
from car_jax.errors import UserError
from car_jax.methods.base import Method


@flax.struct.dataclass
class State:
  step: jax.Array
  total: jax.Array
  fixed: Constants


@dataclasses.dataclass(frozen=True)
class Scaled(Method):
  """Adds up what a file's numbers make of each image."""

  file: str

  def init(self, seed, batch):
    return State(np.int32(0), np.float32(0), constants({'w': np.load(self.file)}))

  def step(self, state, batch, rng):
    total = state.total + jnp.sum(state.fixed.arrays['w']) * jnp.mean(batch['image'])
    return state.replace(step=state.step + 1, total=total), {'loss/none': total}

  def predictors(self):
    return {}


@pytest.fixture
def config(monkeypatch, tmp_path):
  monkeypatch.setitem(lookup.METHODS, 'scaled', 'tests.test_constants:Scaled')
  np.save(tmp_path / 'w.npy', np.arange(5000, dtype=np.float32))
  c = configs.load('configs/smoke.py:supervised')
  c.unlock()
  c.method = dict(name='scaled', file=str(tmp_path / 'w.npy'))
  c.evals, c.best, c.steps, c.save_every = {}, '', 4, 2
  return c


def test_a_run_goes_on_with_constants_that_no_checkpoint_holds(config, tmp_path):
  whole = loop.train(config, tmp_path / 'whole')
  config.steps = 2
  loop.train(config, tmp_path / 'run')
  config.steps = 4
  state = loop.train(config, tmp_path / 'run')
  assert float(state.total) == float(whole.total) != 0
  np.testing.assert_array_equal(state.fixed.arrays['w'], np.arange(5000))
  folder = tmp_path / 'run' / 'checkpoints' / '4'
  assert sum(p.stat().st_size for p in folder.rglob('*') if p.is_file()) < 5000 * 4
  with checkpoints.Checkpoints(folder.parent) as saved:
    alone, meta = saved.restore(4, None)
  assert {*meta['shapes']} == {'step', 'total'}
  assert not jax.tree.leaves(alone['fixed'])
  assert meta['constants'] == {'fixed': state.fixed.digest}


def test_other_constants_than_the_run_began_with_are_refused(config, tmp_path):
  config.steps = 2
  loop.train(config, tmp_path / 'run')
  config.steps = 4
  changed = np.arange(5000, dtype=np.float32)
  changed[4321] += 1
  np.save(config.method.file, changed)
  with pytest.raises(UserError, match='other weights than there are now: fixed\n.*--new'):
    loop.train(config, tmp_path / 'run')
  loop.train(config, tmp_path / 'run', new=True)


def test_a_digest_tells_bytes_types_shapes_and_names_apart():
  a = np.arange(6, dtype=np.float32)
  others = [{'b': a}, {'a': a.reshape(2, 3)}, {'a': a.view(np.int32)}, {'a': -a}, {'a': a, 'b': a}]
  others += [{'a': a.astype(ml_dtypes.bfloat16)}, {}]
  found = {constants(x).digest for x in ({'a': a}, *others)}
  assert len(found) == len(others) + 1
  assert constants({'a': a[::2]}).digest == constants({'a': a[::2].copy()}).digest


def test_what_is_left_out_is_put_back_in_its_place():
  one, two = constants({'w': np.ones(2)}), constants([np.zeros(3)])
  tree = {'a': np.int32(1), 'b': one, 'c': {'d': two, 'e': np.float32(2)}, 'f': {}}
  assert digests(tree) == {'b': one.digest, 'c/d': two.digest}
  bare = without(tree)
  assert jax.tree.leaves(bare) == [1, 2]
  again = filled(jax.tree.map(lambda x: x + 1, bare), tree)
  assert jax.tree.structure(again) == jax.tree.structure(tree)
  assert (again['a'], again['c']['e'], again['b']) == (2, 3, one)
