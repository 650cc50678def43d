"""Label ids and class flips against the published lists and a loop over pixels."""

import numpy as np
import pytest

from car_jax.data import labels
from car_jax.metrics.flips import FLIPS, mode_flips, modes

# label id: train id, as Cityscapes publishes them
PUBLISHED = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11}
PUBLISHED |= {25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


def test_label_ids_map_as_published_and_the_rest_are_unlabelled():
  ids = np.arange(34)
  assert labels.train_ids(ids).tolist() == [PUBLISHED.get(i, 24) for i in ids]
  assert labels.train_ids(ids).dtype == np.uint8


@pytest.mark.parametrize('unknown', [-1, 34, 255])
def test_a_value_that_is_no_label_id_is_unlabelled(unknown):
  assert labels.train_ids(np.array([[unknown, 7]])).tolist() == [[24, 0]]


def test_what_is_not_scored_is_255_in_plain_train_ids():
  ids = np.array([-1, *range(34), 255])
  assert labels.scored_train_ids(ids).tolist() == [PUBLISHED.get(i, 255) for i in ids.tolist()]
  assert labels.scored_train_ids(ids).dtype == np.uint8


def test_idds_classes_by_name():
  by_name = {name: k for k, name in enumerate(labels.CLASS_NAMES)}
  same = {0: 'road', 2: 'sidewalk', 4: 'person', 5: 'rider', 6: 'motorcycle', 7: 'bicycle'}
  same |= {9: 'car', 10: 'truck', 11: 'bus', 14: 'wall', 15: 'fence', 18: 'traffic sign'}
  same |= {19: 'traffic light', 20: 'pole', 22: 'building', 24: 'vegetation', 25: 'sky'}
  ids = np.arange(256)
  want = [by_name[same[i]] if i in same else 255 for i in ids.tolist()]
  assert labels.idd_train_ids(ids).tolist() == want
  assert not {by_name['terrain'], by_name['train']} & set(want)
  assert set(labels.IDD_UNSCORED) == set(range(26)) - set(same)
  found = labels.idd_train_ids(ids, unknown=(8, 16))
  assert found[[8, 16]].tolist() == [254, 254]
  assert np.delete(found, [8, 16]).tolist() == np.delete(want, [8, 16]).tolist()
  assert labels.idd_train_ids(ids).tolist() == want  # the table itself is unchanged


def test_synthias_classes_by_name():
  by_name = {name: k for k, name in enumerate(labels.CLASS_NAMES)}
  names = ('sky', 'building', 'road', 'sidewalk', 'fence', 'vegetation', 'pole', 'car')
  names += ('traffic sign', 'person', 'bicycle', 'motorcycle', '', '', 'traffic light', 'terrain')
  names += ('rider', 'truck', 'bus', 'train', 'wall')
  want = [255, *(by_name.get(name, 255) for name in names), 255, 255]
  ids = np.r_[: len(want), 256, 65535].astype(np.uint16)  # 256 is no sky: 16 bits are looked up
  found = labels.synthia_train_ids(ids)
  assert found.tolist() == [*want, 255, 255]
  assert found.dtype == np.uint8
  named = lambda ids: [labels.CLASS_NAMES[i] for i in ids]
  assert named(labels.SYNTHIA_ABSENT) == ['terrain', 'truck', 'train']
  assert named(labels.SYNTHIA_RARE) == ['wall', 'fence', 'pole']


def test_train_ids_become_label_ids_and_colours_again():
  ids = np.r_[:19, 255]
  back = labels.label_ids(ids)
  assert labels.scored_train_ids(back).tolist() == ids.tolist()
  assert back[-1] == 0
  colours = labels.colours(ids[None])
  assert colours.shape == (1, 20, 3)
  assert colours[0, 1].tolist() == [244, 35, 232]
  assert colours[0, -1].tolist() == [0, 0, 0]
  assert len({tuple(c) for c in colours[0].tolist()}) == 20


def test_names_and_colours_cover_the_classes_and_tell_them_apart():
  assert len(labels.CLASS_NAMES) == len(labels.PALETTE) == 25
  assert len(set(labels.CLASS_NAMES)) == 25
  named = {flip.twin: labels.CLASS_NAMES[flip.base] for flip in FLIPS}
  assert all(labels.CLASS_NAMES[twin] == f'{base} 2' for twin, base in named.items())
  by_name = dict(zip(labels.CLASS_NAMES, labels.PALETTE, strict=True))
  assert by_name['sidewalk'] == (60, 40, 222)
  assert by_name['road 2'] == (255, 165, 0)
  assert by_name['unlabelled'] == (0, 0, 0)
  assert sorted(n for n, c in by_name.items() if c == (153, 153, 153)) == ['pole']


def test_each_flip_happens_with_its_own_roll_only():
  label = np.random.default_rng(0).integers(0, 25, (6, 7)).astype(np.uint8)
  for bits, mode in zip(mode_flips(), np.asarray(modes(label[None])[0]), strict=True):
    rolls = [
      f.probability - 0.01 if bit else f.probability for f, bit in zip(FLIPS, bits, strict=True)
    ]
    flipped = labels.flip_classes(label, np.array(rolls))
    np.testing.assert_array_equal(flipped, mode)
    assert flipped.dtype == label.dtype


def test_a_single_flipping_class_leaves_the_others():
  only_road = (FLIPS[-1]._replace(probability=8 / 17),)
  label = np.array([[0, 1, 11, 13, 8]])
  assert labels.flip_classes(label, [0.47], only_road).tolist() == [[23, 1, 11, 13, 8]]
  assert labels.flip_classes(label, [0.48], only_road).tolist() == label.tolist()


def test_strange_ids_are_named_with_their_share():
  ids = np.array([[0, 33, 34, 34], [255, 7, 7, 200]], np.uint8)
  told = 'id 34 is no class; expected 0 to 33 (50 % of pixels, nor are 2 other ids)'
  assert labels.strange(ids, labels.CITYSCAPES_IDS) == told
  assert labels.strange(ids[:1, :2], labels.CITYSCAPES_IDS) == ''
  assert labels.strange(np.array([-1.0]), labels.TRAIN_IDS).startswith('id -1.0 is no class')
  known = (labels.CITYSCAPES_IDS, labels.ACDC_IDS, labels.GTA5_IDS, labels.SYNTHIA_IDS)
  for allowed in (*known, labels.IDD_IDS, labels.TRAIN_IDS):
    for k in range(300):
      assert bool(labels.strange(np.array([k]), allowed)) == (k not in allowed)
