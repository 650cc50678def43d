"""Data made in memory: readers who disagree, the same on every call."""

import numpy as np
import pytest

from car_jax.data import opening
from car_jax.errors import UserError


def fake(**options):
  return opening.open_dataset({'name': 'fake'} | options)


def test_records_and_sizes_of_splits():
  dataset = fake(size=24, count=8, num_classes=3, readers=5)
  assert [len(dataset.split(s)) for s in ('train', 'validation', 'test')] == [8, 2, 2]
  record = dataset.split('test')[1]
  assert record['image'].shape == (24, 24, 1)
  assert record['labels'].shape == (5, 24, 24)
  assert record['image'].dtype == record['labels'].dtype == np.uint8
  assert record['labels'].max() < 3
  assert len(dataset.info.class_names) == len(dataset.info.palette) == dataset.info.num_classes == 3
  assert dataset.info.readers == 5


def test_the_same_every_time_and_different_between_records():
  first, again = fake().split('train'), fake().split('train')
  for a, b in zip(first, again, strict=True):
    np.testing.assert_array_equal(a['image'], b['image'])
    np.testing.assert_array_equal(a['labels'], b['labels'])
  assert len({r['image'].tobytes() for r in first}) == len(first)
  assert len({r['id'] for s in ('train', 'test') for r in fake().split(s)}) == 32 + 8


def test_readers_disagree_and_the_image_shows_what_they_mean():
  records = list(fake().split('train'))
  assert np.mean([(r['labels'] != r['labels'][:1]).any() for r in records]) > 0.8
  inside, outside = [], []
  for r in records:
    agreed = r['labels'].min(0) > 0
    inside += r['image'][agreed, 0].tolist()
    outside += r['image'][r['labels'].max(0) == 0, 0].tolist()
  assert np.mean(inside) > np.mean(outside) + 20


@pytest.mark.parametrize(
  ('text', 'count'), [('train[:50%]', 16), ('train[-3:]', 3), ('train[4:6]', 2)]
)
def test_slices(text, count):
  whole = [r['id'] for r in fake().split('train')]
  part = [r['id'] for r in fake().split(text)]
  assert len(part) == count
  assert whole[whole.index(part[0]) :][:count] == part


def test_an_unknown_option():
  with pytest.raises(UserError, match=r"'data\.reader'.*\n  did you mean: readers"):
    fake(reader=3)
