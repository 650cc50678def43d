"""SYNTHIA's folders: 16-bit labels of three channels, overlapping splits, damage by path."""

import json
import pathlib

import cv2
import numpy as np
from PIL import Image

from car_jax.data import labels
from car_jax.datasets import common
from car_jax.datasets.synthia import synthia_dataset_builder as builder
from tests.datasets.files import nothing_prepared, records, run, truncate, write_png

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'sac'


def synthia(root, frames=(0, 49), size=(12, 20)):
  """Frame -> the class ids that were written beside random instances."""
  rng, ids = np.random.default_rng(0), {}
  (root / 'GT/LABELS').mkdir(parents=True)
  for frame in frames:
    write_png(root / f'RGB/{frame:07}.png', rng.integers(0, 256, (*size, 3)))
    ids[frame] = rng.integers(0, 23, size)
    instances = rng.integers(0, 2**16, size)
    wide = np.stack([np.zeros(size), instances, ids[frame]], -1)  # cv2 writes the last one first
    cv2.imwrite(str(root / f'GT/LABELS/{frame:07}.png'), wide.astype(np.uint16))
  return ids


def test_classes_are_the_first_of_the_wide_channels(tmp_path):
  ids = synthia(tmp_path / 's')
  assert run('synthia', tmp_path / 's', tmp_path / 'd') == 0
  train = records('synthia', tmp_path / 'd')
  assert set(train) == {'0000000', '0000049'}
  assert set(records('synthia', tmp_path / 'd', 'validation')) == {'0000049'}  # a part of train
  for frame, found in ids.items():
    record = train[f'{frame:07}']
    np.testing.assert_array_equal(record['labels'], labels.synthia_train_ids(found)[None])
    picture = np.asarray(Image.open(tmp_path / f's/RGB/{frame:07}.png'))
    np.testing.assert_array_equal(record['image'], picture)


def test_the_split_is_the_published_one():
  published = json.loads((GOLDEN / 'splits.json').read_text())['synthia_val_ids']
  found = common.listed_numbers(builder.VALIDATION)
  assert found == set(published)
  assert len(found) == 400
  assert found < set(builder.FRAMES)


def test_damage_is_named_at_once(tmp_path, capsys):
  root = tmp_path / 's'
  synthia(root, frames=(0, 1, 2, 3))
  write_png(root / 'GT/LABELS/0000000.png', np.zeros((12, 20, 3)))
  truncate(root / 'GT/LABELS/0000001.png')
  (root / 'GT/LABELS/0000002.png').unlink()
  write_png(root / 'RGB/0000003.png', np.zeros((12, 18, 3)))
  assert run('synthia', root, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  for what in (
    '4 problems in',
    "0000000.png: is no PNG of three channels of 16 bits; take those of SYNTHIA's GT/LABELS",
    '0000001.png cannot be read as a picture',
    '0000002.png: missing',
    'GT/LABELS/0000003.png: 20x12 pixels, its image ',
  ):
    assert what in told
  assert nothing_prepared(tmp_path / 'd')


def test_another_layout_is_refused(tmp_path, capsys):
  (tmp_path / 's/RGB').mkdir(parents=True)
  assert run('synthia', tmp_path / 's', tmp_path / 'd') == 2
  assert 'RGB holds none of 0000000.png to 0009399.png' in capsys.readouterr().err


def test_ids_of_no_class_are_named(tmp_path, capsys):
  """Also those whose lower byte is a class."""
  for strange in (23, 255, 256 + 3):
    root = tmp_path / f's{strange}'
    synthia(root, frames=(0,))
    wide = np.zeros((12, 20, 3), np.uint16)
    wide[3, 4] = 0, 5, strange
    cv2.imwrite(str(root / 'GT/LABELS/0000000.png'), wide)
    assert run('synthia', root, tmp_path / 'd') == 2
    told = f'0000000.png: id {strange} is no class; expected 0 to 22 (0.42 % of pixels)'
    assert told in capsys.readouterr().err


def test_a_label_without_its_image_is_named(tmp_path, capsys):
  synthia(tmp_path / 's')
  (tmp_path / 's/RGB/0000000.png').unlink()
  assert run('synthia', tmp_path / 's', tmp_path / 'd') == 2
  assert 'RGB/0000000.png: missing, but its label ' in capsys.readouterr().err
