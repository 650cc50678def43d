"""What a study says of labels that make its scores mean little."""

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.evaluate import census
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import Prediction
from car_jax.metrics.base import Traits
from car_jax.reliability import count


def counted(labels, unknown=None):
  logits = np.random.default_rng(0).normal(size=(*labels.shape, 2)).astype(np.float32)
  unknown = np.zeros(labels.shape, bool) if unknown is None else unknown
  valid = np.array([True, True])
  arrays = dict(labels=labels[:, None], unknown=unknown, label_weight=np.ones((2, 1)), valid=valid)
  rows = {'m': Row(Prediction(logits=logits), Traits(draws=False, logits=True))}
  ids = np.array(['a', 'b'])
  batch = Predicted(jax.device_put(arrays), rows, ids, ids, valid)
  return count.cells([batch], (), {'none': None}, count.How())['none']


def test_the_census_of_counts_is_that_of_its_labels():
  rng = np.random.default_rng(1)
  labels = rng.choice(np.int32([0, 1, 255]), (2, 9, 8))
  unknown = (labels == 255) & (rng.random(labels.shape) < 0.3)
  found = count.census_of(counted(labels, unknown))
  np.testing.assert_array_equal(found.classes, [(labels == k).sum() for k in (0, 1)])
  assert found.ignored == ((labels == 255) & ~unknown).sum()
  assert found.pixels == labels.size


def test_binary_masks_of_0_and_255_are_told_and_void_alone_is_an_error():
  labels = np.zeros((2, 8, 8), np.int32)
  labels[:, 2:4] = 255
  text = census.remark(count.census_of(counted(labels)), ('background', 'object'))
  assert text.startswith(
    'object never occurs; 25 % of the pixels have an ignored label: masks of 0'
  )
  with pytest.raises(UserError, match='every pixel of the set has the ignored label'):
    counted(np.full((2, 8, 8), 255, np.int32))
