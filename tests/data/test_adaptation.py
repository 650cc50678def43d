"""Batches of two domains: a pure function of seed, step and host, shaped as the methods want."""

import collections
import itertools

import numpy as np
import pytest

from car_jax.data import adaptation, compact, importance, opening, pipeline, prepared
from car_jax.data.sources import DataInfo, Dataset, Source
from car_jax.errors import UserError

SIDE, IGNORED = 8, 255
SIZE = (SIDE, SIDE)
SOURCE = dict(name='game', size=SIZE, scale=(1.0, 1.0), mirror=False, renormalise=True)
TARGET = dict(groups=2, views=3, size=SIZE)
CONFIG = dict(name='streets', train='adaptation', batch=4, threads=1, source=SOURCE, target=TARGET)
SINGLE = dict(groups=3, views=0, size=SIZE, scale=(1.0, 1.0), mirror=False)


class Records(Source):
  """Plain images: every pixel is `first` plus the record's number; so is the label, modulo 3."""

  def __init__(self, first, count):
    self.first, self.count = first, count

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    image = np.full((SIDE, SIDE, 3), self.first + i, np.uint8)
    labels = np.full((1, SIDE, SIDE), i % 3, np.uint8)
    labels[0, 0, 0] = {10: 250, 100: IGNORED}[self.first]  # what either domain ignores
    return {'image': image, 'labels': labels, 'id': f'{self.first}/{i}', 'group': ''}


def info(name, ignored):
  return DataInfo(name, 3, ('a', 'b', 'c'), ((0, 0, 0),) * 3, 1, ignore_label=ignored)


@pytest.fixture
def opened(monkeypatch):
  """open_dataset of two small domains with these entries."""
  known = {
    'game': Dataset(info('game', 250), lambda split: Records(10, 10)),
    'streets': Dataset(info('streets', IGNORED), lambda split: Records(100, 7)),
    'other': Dataset(DataInfo('other', 2, ('a', 'b'), ((0, 0, 0),) * 2, 1), None),
  }
  monkeypatch.setattr(prepared, '_opened', lambda name, folder: known[name])
  return lambda **entries: opening.open_dataset(CONFIG | entries)


def train(dataset, count, *, seed=5, config=CONFIG, **kw):
  split = dataset.split('adaptation')
  batches = pipeline.train_batches(split, dataset.info, config, seed=seed, **kw)
  return [*map(compact.expanded, itertools.islice(batches, count))]


def same(a, b):
  for x, y in zip(a, b, strict=True):
    assert x.keys() == y.keys()
    for key in x:
      np.testing.assert_array_equal(x[key], y[key], err_msg=key)


def test_the_keys_of_a_batch(opened):
  (batch,) = train(opened(), 1)
  shapes = {k: (v.shape, v.dtype.name) for k, v in batch.items()}
  picture, matrix = (6, SIDE, SIDE, 3), (6, 2, 3)
  assert shapes == {
    'image': ((4, SIDE, SIDE, 3), 'float32'),
    'label': ((4, SIDE, SIDE), 'int32'),
    'target': (picture, 'float32'),
    'student': (picture, 'float32'),
    'affine': (matrix, 'float32'),
    'affine_inv': (matrix, 'float32'),
    'target_label': (picture[:3], 'int32'),
    'views': ((6,), 'int32'),
  }
  assert set(batch['views']) == {3}
  for first in (0, 3):  # the first view of each image is the whole window, perhaps mirrored
    np.testing.assert_array_equal(np.abs(batch['affine'][first]), np.eye(2, 3))


def test_images_are_what_a_net_normalises_to_the_intended(opened):
  """A net takes [-1, 1] to ImageNet's scale; the source is to arrive there renormalised."""
  (batch,) = train(opened(), 1)
  level = (batch['label'][:, 1, 1] + 10)[:, None]
  normal = ((batch['image'][:, 1, 1] + 1) / 2 - compact.MEAN) / compact.STD
  mean, std = compact.renormalised()
  near = [np.abs(normal - ((level + 3 * k) / 255 - mean) / std).max(1) for k in range(4)]
  np.testing.assert_allclose(np.min(near, 0), 0, atol=1e-5)
  levels = (batch['target'] + 1) / 2 * 255
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
  assert np.all((levels > 99.9) & (levels < 106.1))


def test_both_domains_ignore_by_the_targets_label(opened):
  (batch,) = train(opened(target=SINGLE), 1)
  assert set(batch) == {'image', 'label', 'target', 'target_label'}
  assert batch['target'].shape == (3, SIDE, SIDE, 3)
  for key in ('label', 'target_label'):
    assert np.all(batch[key][:, 0, 0] == IGNORED)
    assert np.all(batch[key][:, 1:] < 3)


def test_without_groups_there_is_no_target(opened):
  (batch,) = train(opened(target=dict(groups=0)), 1)
  assert set(batch) == {'image', 'label'}


def numbers(batches, key, first, every=1):
  """Which records the batches show, by the level of a middle pixel."""
  renormalise = key == 'image'
  mean, std = compact.renormalised() if renormalise else (compact.MEAN, compact.STD)
  rows = np.concatenate([b[key][::every, 1, 1, 0] for b in batches])
  levels = (((rows + 1) / 2 - compact.MEAN[0]) / compact.STD[0] * std[0] + mean[0]) * 255
  return np.round(levels).astype(int) - first


def test_an_epoch_is_the_sources_and_the_target_keeps_its_own(opened):
  batches = train(opened(), 7)
  shown = numbers(batches, 'image', 10)
  for epoch in (shown[:8], shown[8:16]):  # ten images make two batches of four
    assert len(set(epoch)) == 8
  assert list(shown[:8]) != list(shown[8:16])
  seen = numbers(batches, 'target', 100, every=3)
  assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))


def test_a_batch_depends_on_the_seed_and_the_step_alone(opened):
  whole = train(opened(), 4)
  same(train(opened(), 2, start_step=2), whole[2:])
  other = train(opened(), 1, seed=6)
  assert np.any(other[0]['student'] != whole[0]['student'])


def test_hosts_share_the_batch_of_one_by_whole_images(opened):
  (whole,) = train(opened(), 1)
  parts = [train(opened(), 1, host=h, hosts=2)[0] for h in (0, 1)]
  same([{k: np.concatenate([p[k] for p in parts]) for k in parts[0]}], [whole])
  four = dict(target=dict(TARGET, groups=4), batch=4)
  (whole,) = train(opened(**four), 1)
  parts = [train(opened(**four), 1, host=h, hosts=4)[0] for h in range(4)]
  assert len(parts[0]['target']) == TARGET['views']
  same([{k: np.concatenate([p[k] for p in parts]) for k in parts[0]}], [whole])


def test_images_are_drawn_by_the_classes_found_on_them(opened, tmp_path):
  """Class 2 is on one image only, which its turns then show, but for the uniform quarter."""
  pixels = np.array([[5, 5, 0]] * 6 + [[5, 5, 9]])
  order = np.random.default_rng(0).permutation(7)  # a file in another order than the records
  ids = tuple(f'100/{i}' for i in order)
  importance.Counts(ids, pixels[order]).save(tmp_path / 'counts.npz')
  target = dict(TARGET, views=1, counts=str(tmp_path / 'counts.npz'))
  seen = collections.Counter(numbers(train(opened(target=target), 200), 'target', 100))
  share = (2 / 7 + 0.25 / 7 + 0.75) / 3
  assert seen[6] / 400 == pytest.approx(share, abs=0.08)
  assert len(seen) == 7
  even = dict(target, uniform_classes=(0, 1, 2))
  seen = collections.Counter(numbers(train(opened(target=even), 200), 'target', 100))
  assert seen[6] / 400 == pytest.approx(1 / 7, abs=0.06)


def test_other_splits_are_the_targets(opened):
  dataset = opened()
  assert dataset.info.name == 'streets'
  assert dataset.split('validation')[2]['id'] == '100/2'
  assert len(dataset.split('adaptation')) == 10
  alone = opened(source=dict(SOURCE, name='not prepared'))  # is not opened to score the target
  assert len(alone.split('validation')) == 7


def test_the_draw_of_an_image_says_nothing_of_how_it_is_cut(opened, tmp_path):
  """They once were the same number: each image came in its own slice of the scales."""
  importance.Counts(tuple(f'100/{i}' for i in range(7)), np.ones((7, 3), int)).save(
    tmp_path / 'counts.npz'
  )
  target = dict(TARGET, views=1, counts=str(tmp_path / 'counts.npz'))
  split = opened(target=target).split('adaptation')
  steps = adaptation.Steps(split, 5, 0, 0, 1)
  images, scales = [], []
  for step in range(200):
    rng = steps.target_example(step, 0)[2]
    images.append(steps.chosen(step * 2))
    scales.append(rng.uniform())
  assert abs(np.corrcoef(images, scales)[0, 1]) < 0.2


@pytest.mark.parametrize(
  ('entries', 'message'),
  [
    (dict(source=dict(size=SIZE)), r'config\.data\.source\.name is missing'),
    (dict(source=dict(SOURCE, name='other')), r'class 2 is nothing in other, c in streets\n'),
    (
      dict(source=dict(SOURCE, scales=(1, 2))),
      r"config key 'data\.source\.scales'\n.*scale",
    ),
    (dict(source=dict(SOURCE, ignore_label=3)), r'unknown config key .data\.source\.ignore_label'),
    (dict(target=dict(TARGET, zoomm=(1, 2))), r"unknown config key 'data\.target\.zoomm'\n.*zoom"),
    (dict(target=dict(SINGLE, zoom=(1, 2))), r'target\.zoom is not read with views=0'),
    (dict(target=dict(groups=0, size=SIZE)), 'target.size is not read: groups is 0'),
    (dict(size=8), r'data\.size is not read beside config\.data\.source'),
    (dict(target=dict(TARGET, uniform_share=2)), r'uniform_share is 2\n.*from 0 to 1'),
    (dict(target=dict(TARGET, uniform_classes=(3,))), r'uniform_classes is \(3,\); it is classes'),
    (dict(target=dict(TARGET, groups=-1)), r'target\.groups is -1\n.*at least 0'),
    (dict(target=dict(TARGET, views=1.5)), r'target\.views is 1\.5\n.*a whole number'),
    (dict(target=dict(groups=2, views=3)), r'data\.target\.size is missing'),
    (dict(target=dict(TARGET, size=512)), r'target\.size is 512\n.*a list of 2'),
    (dict(target=dict(TARGET, zoom=(1.0, 0.5))), r"target\.zoom='\(0\.5, 1\.0\)'"),
    (dict(target=dict(TARGET, scale=(0, 1))), r'target\.scale is \(0, 1\)'),
    (dict(target=dict(TARGET, scale=())), r'target\.scale is \(\)'),
    (dict(target=dict(TARGET, blur=1.0)), r'target\.blur is 1\.0'),
    (dict(target=dict(TARGET, blur=True)), r'target\.blur: of views it is two radii'),
    (dict(target=dict(SINGLE, blur=(0.1, 2.0))), r'target\.blur is .*of windows it is True or'),
    (dict(source=dict(SOURCE, blur=(0.1, 2.0))), r'source\.blur is .*\n.*True or False'),
    (dict(source=dict(SOURCE, jitter=1.5)), r'source\.jitter is 1\.5\n.*from 0 to 1'),
    (dict(source=dict(SOURCE, views=4)), r"unknown config key 'data\.source\.views'"),
    (dict(target=dict(TARGET, greyscale=-0.1)), r'target\.greyscale is -0\.1'),
    (dict(target=dict(TARGET, mirror=1)), r'target\.mirror is 1\n.*True or False'),
    (dict(batch=11), r'game has 10 images, fewer than a batch of 11\n.*batch=10'),
    (dict(target=dict(TARGET, counts='nowhere.npz')), 'no such file nowhere.npz'),
  ],
)
def test_entries_that_cannot_be(opened, entries, message):
  with pytest.raises(UserError, match=message):
    train(opened(**entries), 1)


def test_batches_that_do_not_divide(opened):
  with pytest.raises(UserError, match='a batch of 4 cannot be shared by 3 processes'):
    train(opened(), 1, hosts=3)
  target = dict(TARGET, groups=1)
  with pytest.raises(UserError, match=r'1 images in 3 views cannot be split .* 2 devices of 2 '):
    train(opened(target=target), 1, hosts=2)
  target = dict(TARGET, groups=1, views=4)  # four views divide, but they are of one image
  with pytest.raises(UserError, match=r'groups must be a multiple of 2'):
    train(opened(target=target), 1, hosts=2)
