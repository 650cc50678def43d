"""Scores and the picture of generated masks; the trainings are those of configs/genval_tiny.py."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from car_jax.data import labels
from car_jax.data import options as data_options
from car_jax.studies import generated_masks as study


def test_agreement_counts_scored_pixels_alone():
  truth = np.array([[0, 0, 1, 255], [1, 1, 2, 255]])
  seen = np.array([[0, 1, 1, 5], [1, 1, 0, 0]])
  found = study.agreement(seen, truth)
  assert found['accuracy'] == pytest.approx(4 / 6)
  assert found['miou'] == pytest.approx(np.mean([1 / 3, 3 / 4, 0]))  # of road, sidewalk, building
  assert study.agreement(truth, truth)['miou'] == 1


def test_the_table_has_a_row_for_each_comparison():
  scores = {name: dict(miou=0.5, accuracy=0.25) for name in study.ROWS}
  lines = study.table(scores).splitlines()
  assert len(lines) == 2 + len(study.ROWS)
  assert all(line.endswith('| 50.0 % | 25.0 % |') for line in lines[2:])


def test_the_picture_shows_masks_and_scenes_in_their_places():
  n, shape = study.SHOWN, (study.SHOWN, 4, 8)
  ids = np.full(shape, 26, np.uint8)  # cars
  plain = lambda value: np.full((*shape, 3), value, np.uint8)
  made = dict(generated=plain(2), without=plain(3))
  drawn = Image.open(io.BytesIO(study.picture(ids, plain(1), made)))
  sheet = np.asarray(drawn)[:: study.ZOOM, :: study.ZOOM]
  assert sheet.shape == (4 * 4 + 3 * study.GAP, n * 8 + (n - 1) * study.GAP, 3)
  rows = sheet[:: 4 + study.GAP, 8 + study.GAP]
  np.testing.assert_array_equal(rows[0], labels.OFFICIAL_PALETTE[labels.CLASS_NAMES.index('car')])
  np.testing.assert_array_equal(rows[1:, 0], [1, 2, 3])


def test_too_few_scenes_are_refused(tmp_path, capsys):
  assert study.main(['--out', str(tmp_path), '--scenes', '1']) == 2
  assert '--scenes 1; at least 6' in capsys.readouterr().err


def test_segmenter_and_generator_see_the_same_scenes():
  config = study.changed('configs/genval_tiny.py:controlnet', pathlib.Path('out'))
  assert config.method.weights == config.data.tokenizer == 'out/weights'
  config.data.update(count=1, batch=1, tokenizer='')
  data = data_options.of(config.data)
  scene = data.split('test').scenes[0]
  record = study.drawn_dataset(data).split('test')[0]
  np.testing.assert_array_equal(record['image'], scene.image)
  np.testing.assert_array_equal(record['labels'][0], labels.scored_train_ids(scene.labels))
  pictures, ids, (text,) = study.test_scenes(data, 1)
  assert pictures.shape == (1, 32, 64, 3)
  np.testing.assert_array_equal(ids[0], scene.labels)
  assert text.startswith('a ')
  assert study.segmenter_config(data).method.model.name == 'deeplabv3plus'
