"""Drawn street scenes: what depends on what, what is to be seen, and the imperfect answer."""

import numpy as np
import pytest
from scipy import ndimage

from car_jax.data.labels import train_ids
from car_jax.datasets.street_scenes import (
  black_box,
  canvas,
  develop,
  ground,
  layout,
  people,
  unknown,
  weather,
)
from car_jax.datasets.street_scenes.scenes import DOMAINS, render
from car_jax.errors import UserError

# label id -> the share of scored pixels it may take, and in how many scenes it must be seen
SHARES = {
  7: (0.28, 0.45),
  8: (0.03, 0.09),
  11: (0.15, 0.32),
  12: (0.002, 0.02),
  13: (0.002, 0.02),
  17: (0.006, 0.03),
  19: (0.001, 0.006),
  20: (0.002, 0.012),
  21: (0.10, 0.23),
  22: (0.002, 0.025),
  23: (0.02, 0.08),
  24: (0.005, 0.03),
  25: (0.0003, 0.006),
  26: (0.04, 0.12),
  27: (0.0, 0.02),
  28: (0.0, 0.02),
  31: (0.0, 0.02),
  32: (0.0, 0.006),
  33: (0.001, 0.015),
}
SEEN = {7: 1.0, 8: 0.9, 21: 0.9, 26: 0.9, 24: 0.7}
COUNT = 24


@pytest.fixture(scope='module')
def labels():
  """Label ids [COUNT, 64, 128]."""
  return np.stack([render(7, i, height=64).labels for i in range(COUNT)])


def test_the_same_arguments_give_the_same_bytes():
  one, two = (render(3, 5, height=64, domain='snow', strength=0.6) for _ in range(2))
  assert one.image.tobytes() == two.image.tobytes()
  assert one.labels.tobytes() == two.labels.tobytes()
  assert render(3, 6, height=64).labels.tobytes() != one.labels.tobytes()
  assert render(4, 5, height=64).labels.tobytes() != one.labels.tobytes()


@pytest.mark.parametrize('domain', DOMAINS[1:])
def test_weather_grows_with_strength_and_leaves_the_labels_alone(domain):
  plain = render(2, 1, height=64)
  apart = []
  for strength in (0.0, 0.1, 0.4, 0.7, 1.0):
    scene = render(2, 1, height=64, domain=domain, strength=strength)
    np.testing.assert_array_equal(scene.labels, plain.labels)
    apart.append(np.abs(scene.image.astype(float) - plain.image).mean())
  assert apart[0] == 0
  assert (np.diff(apart) > 0.3).all(), apart
  assert apart[-1] > 15


@pytest.mark.parametrize('height', [32, 100, 512])
def test_shape_and_type(height):
  scene = render(1, 0, height=height)
  assert scene.image.shape == (height, 2 * height, 3)
  assert scene.labels.shape == (height, 2 * height)
  assert scene.image.dtype == scene.labels.dtype == np.uint8
  assert scene.labels.max() <= 33


def test_another_height_shows_the_same_scene():
  for index in range(3):
    large, small = render(1, index, height=128), render(1, index, height=64)
    assert (large.labels[::2, ::2] == small.labels).mean() > 0.9
    averaged = large.image.reshape(64, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(averaged - small.image).mean() < 2


def test_classes_are_about_as_frequent_as_in_cityscapes(labels):
  counts = np.bincount(labels.ravel(), minlength=34)
  assert len(counts) == 34
  scored = counts[list(SHARES)].sum()
  assert scored / labels.size > 0.9
  for label, (low, high) in SHARES.items():
    assert low <= counts[label] / scored <= high, (label, counts[label] / scored)
  for label, share in SEEN.items():
    seen = ((labels == label).sum((1, 2)) >= 4).mean()
    assert seen >= share, (label, seen)


def test_the_bonnet_is_not_scored(labels):
  assert (labels[:, -1, 64] == layout.EGO_VEHICLE).all()


def test_unknown_domain_and_bad_strength():
  with pytest.raises(UserError, match=r"'nihgt'\n.*night"):
    render(0, 0, domain='nihgt')
  for strength in (-0.1, 1.5, float('nan')):
    with pytest.raises(UserError, match=str(strength)):
      render(0, 0, domain='fog', strength=strength)


def test_fog_is_thicker_far_away():
  """On the road, whose distance is known, less of the contrast to the air is left farther off."""
  rng = np.random.default_rng(1)
  painted = canvas.Canvas(ground.camera(rng, canvas.HEIGHT))
  ground.lay(painted, rng, ground.plan(rng))
  light = develop.light(painted, rng)
  foggy, _ = weather.fog(light, 1.0, np.random.default_rng(2))
  changed = np.abs(foggy - light.colour).mean(2)
  near, far = (light.depth < 8), (light.depth > 30) & (light.depth < 60)
  assert changed[far].mean() > 2 * changed[near].mean()


def test_the_black_box_is_good_but_not_perfect(labels):
  truth = train_ids(labels).astype(int)
  answers = [black_box.imperfect(x, np.random.default_rng([1, i])) for i, x in enumerate(labels)]
  again = black_box.imperfect(labels[0], np.random.default_rng([1, 0]))
  np.testing.assert_array_equal(again, answers[0])
  assert np.stack(answers).dtype == np.uint8
  assert set(np.unique(answers)) <= set(SHARES)
  scored = truth < 19
  told = train_ids(np.stack(answers)).astype(int)
  matrix = np.bincount((truth * 19 + told)[scored], minlength=361).reshape(19, 19)
  right = np.diag(matrix)
  union = matrix.sum(0) + matrix.sum(1) - right
  miou = (right[union > 0] / union[union > 0]).mean()
  assert 0.7 <= miou <= 0.9, miou


def test_the_black_box_answers_where_nothing_is_scored():
  answer = black_box.imperfect(np.full((9, 14), 3, np.uint8), np.random.default_rng(0))
  assert answer.shape == (9, 14)
  assert set(np.unique(answer)) <= set(SHARES)


@pytest.mark.parametrize('domain', ['clear', 'fog'])
def test_unknown_objects_change_their_own_pixels_and_shadows(domain):
  kw = dict(height=64, domain=domain, strength=0.3)
  seen, struck, far = [], [], 0
  for index in range(7):
    plain = render(5, index, **kw)
    strange = render(5, index, unknown_share=1.0, **kw)
    assert not plain.unknown.any()
    assert (strange.labels[strange.unknown] == people.DYNAMIC).all()
    np.testing.assert_array_equal(strange.labels[~strange.unknown], plain.labels[~strange.unknown])
    seen.append(strange.unknown.mean())
    changed = np.abs(strange.image.astype(int) - plain.image).max(-1) > 24
    far += (changed & ~ndimage.binary_dilation(strange.unknown, iterations=12)).sum()
    struck.append(changed[strange.unknown])
  assert np.mean(np.array(seen) > 0) > 0.7
  assert max(seen) < 0.2
  assert np.concatenate(struck).mean() > 0.5
  assert far == 0


def test_the_share_of_scenes_with_unknown_objects():
  street = ground.plan(np.random.default_rng(0))
  painted = canvas.Canvas(ground.camera(np.random.default_rng(0), canvas.HEIGHT))
  counts = {}
  for share in (0.0, 0.3, 1.0):
    streams = (np.random.default_rng([1, i]) for i in range(600))
    counts[share] = np.array([len(unknown.things(painted, s, street, share)) for s in streams])
  assert counts[0.0].max() == 0
  assert counts[1.0].min() == 1
  assert counts[1.0].max() == 3
  few = counts[0.3] > 0
  assert 0.24 < few.mean() < 0.36
  np.testing.assert_array_equal(counts[0.3][few], counts[1.0][few])  # more are added to the same


@pytest.mark.parametrize('draw', [unknown.boulder, unknown.crate, unknown.ball, unknown.animal])
def test_every_kind_stands_where_it_is_put(draw):
  for seed in range(5):
    camera = canvas.Camera(200.0, 512.0, 1000.0, 1.4, 0.0)
    painted = canvas.Canvas(camera)
    draw(painted, np.random.default_rng(seed), 1.0, 10.0)
    rows, columns = np.nonzero(painted.numbers())
    foot_column, foot_row = camera.pixel(1.0, 0.0, 10.0)
    assert abs(rows.max() - foot_row) < 20
    assert abs((columns.min() + columns.max()) / 2 - foot_column) < 60
    assert 30 < np.ptp(rows) < 300
    assert painted.shadows().max() > 0
    assert {p.label for p in painted.paints[1:]} == {people.DYNAMIC}
