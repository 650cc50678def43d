"""Pixels of unknown objects are ignored in every label and marked in a key of their own."""

import dataclasses

import numpy as np
import pytest

from car_jax.data import class_flips, compact, pipeline
from car_jax.data.sources import DataInfo, Dataset, Source

SHAPE = (6, 8)
INFO = DataInfo(
  'test', 2, ('a', 'b'), ((0, 0, 0),) * 2, 1, ignore_label=255, unknown_label=254, black_box=True
)


class Records(Source):
  def __len__(self):
    return 4

  def __getitem__(self, i):
    rng = np.random.default_rng(i)
    values = np.array([0, 1, 254, 255], np.uint8)
    image = np.zeros((*SHAPE, 3), np.uint8)
    label = values[rng.integers(0, 4, SHAPE)]
    image[..., 0] = label
    box = rng.integers(0, 2, SHAPE).astype(np.uint8)
    record = {'image': image, 'labels': label[None], 'id': f'id{i}', 'group': 'g'}
    return record | {'black_box': box}


def stored(batch):
  """The label that each record holds, as its image tells."""
  return np.round((batch['image'][..., 0] + 1) * 127.5).astype(int)


def test_training_and_evaluation_mark_them_and_ignore_them():
  config = dict(batch=4, mirror=True, size=5, crop='random')
  train = compact.expanded(next(pipeline.train_batches(Records(), INFO, config, seed=0)))
  (test,) = map(compact.expanded, pipeline.eval_batches(Records(), INFO, config))
  for batch in (train, test):
    label = stored(batch)
    assert batch['unknown'].dtype == bool
    assert batch['unknown'].any()
    np.testing.assert_array_equal(batch['unknown'], label == 254)
    np.testing.assert_array_equal(batch['labels'][:, 0], np.where(label == 254, 255, label))
  np.testing.assert_array_equal(train['label'], train['labels'][:, 0])


def test_other_data_sets_have_no_such_key():
  info = dataclasses.replace(INFO, unknown_label=None)
  (batch,) = pipeline.eval_batches(Records(), info, dict(batch=4))
  assert 'unknown' not in batch
  assert (batch['labels'] == 254).any()


def test_with_random_flips():
  flipped = class_flips.flipped(Dataset(INFO, lambda split: Records()), 'b:1/2')
  batches = pipeline.eval_batches(flipped.split('test'), flipped.info, dict(batch=4))
  (batch,) = map(compact.expanded, batches)
  label = stored(batch)
  np.testing.assert_array_equal(batch['unknown'], label == 254)
  ignored = flipped.info.ignore_label
  for mode in range(2):
    np.testing.assert_array_equal(batch['labels'][:, mode] == ignored, label >= 254)
  assert batch['labels'].max() == ignored == 3


def test_an_unknown_label_needs_an_ignored_one():
  info = dataclasses.replace(INFO, ignore_label=None)
  with pytest.raises(ValueError, match='no ignore_label'):
    next(pipeline.eval_batches(Records(), info, dict(batch=4)))
