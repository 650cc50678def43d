"""Masks by networks of other packages: what is asked of them, and what is made of their answers."""

import sys
import types

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate import promptable
from car_jax.generate.boxes import Box
from car_jax.generate.options import MaskOptions

SCENE = np.zeros((40, 60, 3), np.uint8)
BOX = Box(8, 16, 20, 30)


@pytest.mark.parametrize(
  ('method', 'name', 'extra'),
  [('sam3', 'keras_hub', 'sam3'), ('grounded', 'torch', 'grounded')],
)
def test_a_missing_package_is_told_with_its_extra(method, name, extra, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UserError, match=rf"needs {name}.*\n.*pip install 'car-jax\[{extra}\]'"):
    promptable.method(MaskOptions(method=method))


class Segmenter:
  """Two queries: the second is surer, and covers the right half."""

  scores = (0.3, 0.9)

  @classmethod
  def from_preset(cls, place):
    if place == 'nowhere':
      raise ValueError('no such preset')
    return cls()

  def predict(self, inputs, verbose):
    self.inputs = inputs
    share = np.zeros((1, 2, 10, 10), np.float32)
    share[0, 1, :, 5:] = 0.8
    return dict(scores=np.array([self.scores]), boxes=np.zeros((1, 2, 4)), masks=share)


@pytest.fixture
def keras_hub(monkeypatch):
  models = types.SimpleNamespace(SAM3PromptableConceptImageSegmenter=Segmenter)
  monkeypatch.setitem(sys.modules, 'keras_hub', types.SimpleNamespace(models=models))
  return Segmenter


def test_sam3s_best_query_is_the_mask(keras_hub):
  edited = np.random.default_rng(0).integers(0, 256, SCENE.shape, np.uint8)
  method = promptable.method(MaskOptions(method='sam3'))
  found = method(SCENE, edited, BOX, 'polar bear')
  assert found.score == 0.9
  inside = BOX.inside(found.pixels)
  assert inside[:, 11:].all()
  assert not inside[:, :9].any()
  assert found.pixels.sum() == inside.sum()
  sent = method.args[0].segmenter.inputs
  assert sent['prompts'] == ['polar bear']
  np.testing.assert_array_equal(sent['images'][0], BOX.inside(edited))
  swapped = promptable.method(MaskOptions(method='sam3', swapped_channels=True))
  swapped(SCENE, edited, BOX, 'polar bear')
  sent = swapped.args[0].segmenter.inputs['images'][0]
  np.testing.assert_array_equal(sent, BOX.inside(edited)[..., ::-1])


def test_what_sam3_is_unsure_of_is_rejected(keras_hub, monkeypatch):
  monkeypatch.setattr(keras_hub, 'scores', (0.3, 0.4))
  found = promptable.method(MaskOptions(method='sam3'))(SCENE, SCENE, BOX, 'zebra')
  assert found.pixels is None
  assert found.reason == 'no zebra found: 0.40, expected 0.5'


def test_weights_that_cannot_be_loaded_are_named(keras_hub):
  with pytest.raises(UserError, match=r'config.masks.sam3: nowhere cannot be loaded \(no such'):
    promptable.method(MaskOptions(method='sam3', sam3='nowhere'))
