"""Images drawn by class: tables against a loop, frequencies against the tables, mistakes told."""

import numpy as np
import pytest

from car_jax.data import importance
from car_jax.errors import UserError


def maps(images=5, classes=4, unseen=2):
  """Images of 6 x 7 pixels without the class `unseen`; some pixels are ignored."""
  rng = np.random.default_rng(0)
  found = rng.integers(0, classes, (images, 6, 7))
  found[found == unseen] = 255
  return [(f'image{i}', m) for i, m in enumerate(found)]


@pytest.fixture
def counts():
  return importance.counted(maps(), 4)


def test_shares_are_of_all_pixels_of_the_class(counts):
  found = maps()
  for c in range(4):
    total = sum((m == c).sum() for _, m in found)
    want = [(m == c).sum() / max(total, 1) for _, m in found]
    np.testing.assert_allclose(counts.shares[:, c], want)
  assert counts.ids == tuple(name for name, _ in found)


def test_a_class_that_is_ignored_or_never_found_is_drawn_uniformly(counts):
  found = importance.distribution(counts.shares, prior=0.2, ignored=(1,))
  for c in range(4):
    chances = np.diff(found[c], prepend=0)
    want = np.full(5, 0.2) if c in (1, 2) else 0.2 / 5 + 0.8 * counts.shares[:, c]
    np.testing.assert_allclose(chances, want)


def test_the_image_is_the_first_whose_cumulative_chance_reaches_u():
  table = np.array([[0.25, 0.25, 0.5, 1.0], [0.5, 1.0, 1.5, 2.0]])
  picked = lambda turn, us: [importance.pick(table, turn, u) for u in us]
  assert picked(0, (0.0, 0.25, 0.3, 0.5, 0.6, 0.999)) == [0, 0, 2, 2, 3, 3]
  assert picked(3, (0.0, 0.25, 0.3, 0.999)) == [0, 0, 1, 3]  # u is of the row's own total


def test_draws_depend_on_seed_and_number_only_and_epochs_differ(counts):
  table = importance.distribution(counts.shares)
  draws = importance.Draws(table, seed=3, length=100)
  forward = [draws[n] for n in range(200)]
  again = importance.Draws(table, seed=3, length=100)
  assert [again[n] for n in reversed(range(200))] == forward[::-1]
  assert forward[:100] != forward[100:]
  assert [importance.Draws(table, seed=4, length=100)[n] for n in range(200)] != forward


def test_classes_have_even_turns_and_images_their_chances(counts):
  table = importance.distribution(counts.shares, prior=0.1)
  draws, length = importance.Draws(table, seed=0, length=400), 4000
  found = np.bincount([draws[n] for n in range(length)], minlength=5) / length
  want = np.diff(table, prepend=0, axis=1).mean(0)
  np.testing.assert_allclose(found, want, atol=4 * np.sqrt(0.25 / length))
  rare = np.eye(4) * 0.999 + 0.001 / 4  # class c is on image c: the draws show the turns
  rare = importance.Draws(np.cumsum(rare, 1), seed=0, length=400)
  turns = np.bincount([rare[n] for n in range(400)], minlength=4)
  assert np.abs(turns - 100).max() <= 2


def test_counts_come_back_from_their_file_and_in_another_order(tmp_path, counts):
  counts.save(tmp_path / 'counts.npz')
  found = importance.load(tmp_path / 'counts.npz', 4)
  assert found.ids == counts.ids
  np.testing.assert_array_equal(found.pixels, counts.pixels)
  some = found.of(['image3', 'image0'])
  assert some.ids == ('image3', 'image0')
  np.testing.assert_array_equal(some.pixels, counts.pixels[[3, 0]])


def test_mistakes(tmp_path, counts):
  path = tmp_path / 'counts.npz'
  with pytest.raises(
    UserError, match='no such file .*counts.npz\n  to make it .*label_maps FOLDER .*counts.npz'
  ):
    importance.load(path, 4)
  counts.save(path)
  with pytest.raises(
    UserError, match='counts 4 classes, the data set has 19\n  count the predictions'
  ):
    importance.load(path, 19)
  for damage in (b'text', path.read_bytes()[:200], b''):
    path.write_bytes(damage)
    with pytest.raises(
      UserError, match='counts.npz cannot be read as .*\n  to make them: python -m'
    ):
      importance.load(path, 4)
  with pytest.raises(UserError, match="'imag3' was not counted\n  did you mean: image"):
    counts.of(['image1', 'imag3'])


@pytest.mark.parametrize(
  ('ids', 'pixels', 'message'),
  [
    ('ab', np.full((2, 4), -1), 'it counts -1 to -1 pixels'),
    ('ab', np.full((2, 4), np.nan), 'pixels float64'),
    ('ab', np.ones((2, 4)), 'pixels float64'),
    ('ab', np.ones((2, 4), bool), 'pixels bool'),
    ('ab', np.full((2, 4), 1j), 'pixels complex128'),
    ('ab', np.full((2, 4), 2**63 - 1), 'it counts 92'),
    ('ab', np.ones((3, 4), int), r'shape \(2,\), pixels \(3, 4\)'),
    ('ab', np.ones((2, 4, 1), int), r'pixels \(2, 4, 1\)'),
    ('aa', np.ones((2, 4), int), "'a' is there twice"),
    ([1, 2], np.ones((2, 4), int), 'ids are int64'),
    ('', np.zeros((0, 4), int), r'\(0, 4\)'),
  ],
)
def test_counts_that_count_nothing_are_refused(tmp_path, ids, pixels, message):
  np.savez(tmp_path / 'c.npz', ids=np.array(list(ids)), pixels=pixels)
  with pytest.raises(UserError, match=f'c.npz cannot be read as counts .*{message}.*\n  to make'):
    importance.load(tmp_path / 'c.npz', 4)
