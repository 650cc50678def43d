"""Masks by difference: objects of known outline are found, and none where there is none."""

import numpy as np
import pytest

from benchmarks import masks as made_up
from car_jax.generate import masks
from car_jax.generate.boxes import Box, crop_side

SIDE = 96


@pytest.mark.parametrize(
  ('contrast', 'repainted', 'least', 'rejected'),
  [(100, 0, 0.97, 0), (50, 0, 0.97, 0), (100, 4, 0.9, 0), (50, 4, 0.9, 1)],
)
def test_iou(contrast, repainted, least, rejected):
  score, count = made_up.cell(contrast, repainted, 4, SIDE)
  assert score > least
  assert count <= rejected


def test_no_empty_box_is_accepted():
  assert made_up.empty_accepted(52, SIDE) == 0


def test_grabcut_follows_edges():
  before, after, there, box = made_up.made(3, SIDE, 100, 4)
  plain, cut = (masks.difference(before, after, box, grabcut=g) for g in (False, True))
  assert made_up.iou(cut.pixels, there) > 0.97
  assert made_up.iou(cut.pixels, there) >= made_up.iou(plain.pixels, there)


def test_nothing_and_everything_are_rejected():
  before, _, _, box = made_up.made(0, SIDE, 0, 0)
  assert masks.difference(before, before, box).reason.startswith('no change: 0.0')
  after = before.copy()
  box.inside(after)[...] = 255 - box.inside(after)
  assert masks.difference(before, after, box).pixels is None


def test_a_prior_chooses_between_two_objects():
  box = Box(16, 16, SIDE, crop_side(SIDE))
  scene = np.full((144, 144, 3), 120, np.uint8)
  edited = scene.copy()
  box.inside(edited)[40:60, 20:40] = (200, 60, 60)
  box.inside(edited)[40:60, 60:80] = (200, 60, 60)
  prior = np.full((SIDE, SIDE), 0.05)
  prior[:, 55:] = 1
  found = box.inside(masks.difference(scene, edited, box, prior=prior).pixels)
  assert found[50, 70]
  assert not found[50, 30]


def test_otsus_threshold_against_a_search():
  rng = np.random.default_rng(0)
  x = np.concatenate([rng.normal(2, 1, 900), rng.normal(12, 2, 300)])
  cuts = np.linspace(x.min(), x.max(), 400)[1:-1]
  parted = [(x[x < c], x[x >= c]) for c in cuts]
  between = [len(a) * len(b) * (a.mean() - b.mean()) ** 2 for a, b in parted]
  assert abs(masks.otsu(x) - cuts[int(np.argmax(between))]) < 0.3


def test_areas_too_small_or_too_large():
  scene, box = np.zeros((20, 20, 3), np.uint8), Box(5, 5, 10, 15)
  one = np.zeros((10, 10), bool)
  one[0, 0] = True
  assert (
    masks.accepted(one, scene, box, 1.0).reason == '1.0 % of the box is covered, expected 2 to 85'
  )
  assert masks.accepted(~one, scene, box, 1.0).pixels is None
  one[:3] = True
  found = masks.accepted(one, scene, box, 1.0)
  assert found.pixels.sum() == 30
  assert found.pixels[5:8, 5:15].all()
