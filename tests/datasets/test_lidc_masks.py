"""The embedded data set, cut to twelve slices."""

import cv2
import numpy as np
import pytest

from car_jax.data import prepared
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as builder
from car_jax.datasets.lidc_masks import render
from tests.datasets.files import records, run


@pytest.fixture(scope='module')
def few(tmp_path_factory):
  """Four slices of each split."""
  data = dict(np.load(builder.FILE))
  rows = np.concatenate([np.flatnonzero(data['split'] == s)[:4] for s in range(3)])
  path = tmp_path_factory.mktemp('masks') / 'few.npz'
  np.savez(path, **{k: v if k == 'series_uid' else v[rows] for k, v in data.items()})
  return path


@pytest.fixture(autouse=True)
def use_few(few, monkeypatch):
  monkeypatch.setattr(builder, 'FILE', few)


def test_records_are_the_masks_around_their_centre(tmp_path, few):
  assert run('lidc_masks', None, tmp_path, '--size', '64') == 0
  assert prepared.prepared(tmp_path) == ['lidc_masks/size64']
  found = records('lidc_masks/size64', tmp_path, 'validation')
  assert len(found) == 4
  data = np.load(few)
  for i in np.flatnonzero(data['split'] == 1):
    patient = f'LIDC-IDRI-{data["patient"][i]:04d}'
    record = found[f'{patient}/nodule{data["nodule"][i]:04d}/z{data["z_mm"][i]:+.2f}']
    assert record['group'] == patient
    assert record['image'].shape == (64, 64, 1)
    assert record['image'].dtype == np.uint8
    masks = np.unpackbits(data['masks'][i]).reshape(4, 128, 128)
    np.testing.assert_array_equal(record['labels'], masks[:, 32:96, 32:96])


def test_two_preparations_are_the_same_and_options_have_their_own_place(tmp_path):
  for name in ('a', 'b'):
    assert run('lidc_masks', None, tmp_path / name) == 0
  assert run('lidc_masks', None, tmp_path / 'a', '--noise', '2', '--contrast', '0.5') == 0
  assert prepared.prepared(tmp_path / 'a') == ['lidc_masks', 'lidc_masks/noise2-contrast0.5']
  first, again = (records('lidc_masks', tmp_path / name) for name in ('a', 'b'))
  harder = records('lidc_masks/noise2-contrast0.5', tmp_path / 'a')
  assert list(first) == list(again)
  for name in first:
    np.testing.assert_array_equal(first[name]['image'], again[name]['image'])
    assert (first[name]['image'] != harder[name]['image']).any()
    np.testing.assert_array_equal(first[name]['labels'], harder[name]['labels'])


def disc(radius):
  y, x = np.mgrid[:128, :128] - 63.5
  return (np.hypot(y, x) < radius).astype(np.uint8)


def test_the_nodule_is_brighter_the_more_readers_agree():
  ratings = np.full((4, 5), 4, np.uint8)
  inside = cv2.erode(disc(12), np.ones((5, 5))) > 0

  def brightness(readers):
    masks = np.stack([disc(12) * (m < readers) for m in range(4)])
    return np.mean([render.slice_image(masks, ratings, seed=s)[inside].mean() for s in range(6)])

  levels = [brightness(n) for n in (0, 2, 4)]
  assert levels[0] + 15 < levels[1]
  assert levels[1] + 15 < levels[2]


def test_a_slice_is_its_seeds():
  masks, ratings = np.stack([disc(8)] * 4), np.full((4, 5), 3, np.uint8)
  whole = render.slice_image(masks, ratings, seed=3)
  np.testing.assert_array_equal(render.slice_image(masks, ratings, seed=3), whole)
  assert (render.slice_image(masks, ratings, seed=4) != whole).any()
