import itertools

import numpy as np
import pytest

from car_jax.metrics import flips, stochastic
from tests.metrics import oracle, published
from tests.whole import whole

B, N, H, W, C = 3, 4, 6, 7, flips.NUM_CLASSES


@pytest.fixture
def scene():
  """Unflipped labels without class 14, samples, black-box ids and probabilities."""
  rng = np.random.default_rng(0)
  labels = rng.choice([0, 1, 2, 8, 11, 13, 18, 24], (B, H, W))
  samples = rng.integers(0, C, (B, N, H, W))
  black_box = np.where(rng.random((B, H, W)) < 0.7, labels, rng.integers(0, C, (B, H, W)))
  return labels, samples, black_box, rng.dirichlet(np.ones(C), (B, H, W)).astype(np.float32)


def test_modes_are_all_subsets_with_their_probabilities():
  labels = np.array([[[1, 11, 13, 8, 0, 5, 24]]])
  got, weights = np.asarray(whole(flips.modes)(labels))[0, :, 0], flips.mode_weights()
  flipped = {}
  for choice in itertools.product([False, True], repeat=5):
    names = [f.twin if c else f.base for f, c in zip(flips.FLIPS, choice, strict=True)]
    shares = [
      f.probability if c else 1 - f.probability for f, c in zip(flips.FLIPS, choice, strict=True)
    ]
    flipped[(*names, 5, 24)] = np.prod(shares)
  assert len(flipped) == 32
  assert {tuple(mode): pytest.approx(w) for mode, w in zip(got, weights, strict=True)} == flipped
  assert weights.sum() == pytest.approx(1)
  assert list(got[0]) == [1, 11, 13, 8, 0, 5, 24]
  assert list(got[16]) == [19, 11, 13, 8, 0, 5, 24]  # sidewalk is the highest bit


def test_one_flip_has_two_modes():
  road = (flips.Flip(0, 23, 8 / 17),)
  np.testing.assert_array_equal(
    whole(flips.modes)(np.array([[[0, 1]]]), road)[0, :, 0], [[0, 1], [23, 1]]
  )
  np.testing.assert_allclose(flips.mode_weights(road), [9 / 17, 8 / 17])
  assert flips.switchable(road) == (0, 23)


def test_mode_counts_and_frequencies(scene):
  labels, samples, *_ = scene
  got = np.asarray(whole(published.mode_counts)(labels, samples))
  for i, flip in enumerate(flips.FLIPS):
    for image in range(B):
      said = samples[image][:, labels[image] == flip.base]
      want = [said.size, (said == flip.base).sum(), (said == flip.twin).sum()]
      assert list(got[image, i]) == want
  pooled = flips.frequencies(got.sum(0))
  np.testing.assert_allclose(pooled[0], got[:, 0, 1:].sum(0) / got[:, 0, 0].sum())
  never = flips.frequencies(np.array([[0, 0, 0]]))
  assert np.isnan(never).all()


def test_class_probabilities_pooled_and_published(scene):
  labels, _, black_box, probs = scene
  batches, faithful = [], []
  for part in (slice(0, 2), slice(2, 3)):
    batches.append(whole(flips.class_sums)(probs[part], labels[part], black_box[part]))
    means = np.zeros(C)
    for k in range(C):
      base = {f.twin: f.base for f in flips.FLIPS}
      right = [
        base.get(x, x) == y for x, y in zip(black_box[part].flat, labels[part].flat, strict=True)
      ]
      here = (labels[part] == base.get(k, k)) & np.reshape(right, labels[part].shape)
      means[k] = probs[part][here, k].mean() if here.any() else 0
    faithful.append(means)
  published = flips.class_probabilities(batches, pooled=False)
  np.testing.assert_allclose(published, np.mean(faithful, 0), atol=1e-6)
  one = [whole(flips.class_sums)(probs, labels, black_box)]
  np.testing.assert_allclose(
    flips.class_probabilities(batches), flips.class_probabilities(one), atol=1e-7
  )
  assert np.isnan(flips.class_probabilities(one)[14])
  assert published[14] == 0


def test_ged_against_the_exact_modes(scene):
  """The table of docs/metrics.md: all 32 modes as readers, weighted by their probabilities."""
  labels, samples, *_ = scene
  fixed = dict(classes=flips.switchable(), absent='skip', ignore=flips.UNLABELLED)
  fixed |= dict(ignored='class')
  readers, weight = np.asarray(whole(flips.modes)(labels)), flips.mode_weights()
  got = whole(stochastic.ged)(samples, readers, reader_weight=weight, **fixed)
  far = 1 - np.asarray(stochastic.compare(samples, readers, **fixed).iou)
  for image in range(B):
    pair = oracle.distances([readers[image, 7], samples[image, 2]], **fixed)[0, 1]
    assert far[image, 7, 34] == pytest.approx(pair, abs=1e-6)
    ys, yy = far[image, :32, 32:].mean(-1) @ weight, weight @ far[image, :32, :32] @ weight
    np.testing.assert_allclose((got.d_ys[image], got.d_yy[image]), (ys, yy), atol=1e-5)


def test_correct_takes_twins_for_their_base():
  got = whole(flips.correct)(np.array([[[1, 1, 2, 20]]]), np.array([[[19, 20, 2, 11]]]))
  np.testing.assert_array_equal(got, [[[True, False, True, True]]])


def test_true_probabilities():
  present = np.ones(C, bool)
  present[14] = False
  truth = published.true_probabilities(present)
  assert (truth[1], truth[19]) == pytest.approx((9 / 17, 8 / 17))
  assert (truth[2], truth[14]) == (1, 0)


def test_weights_enter_counts_and_modes(scene):
  labels, samples, *_ = scene
  weight = np.random.default_rng(1).dirichlet(np.ones(N), B).astype(np.float32)
  said = whole(flips.flip_counts)(labels, samples)
  got = np.array(flips.weighted_counts(said, weight))
  masses = np.asarray(flips.mode_masses(said, weight))
  for b in range(B):
    want = np.zeros(32)
    for n in range(N):
      number = 0
      for k, flip in enumerate(flips.FLIPS):
        here = samples[b, n][labels[b] == flip.base]
        twins, bases = (here == flip.twin).sum(), (here == flip.base).sum()
        got[b, k, 1:] -= weight[b, n] * np.array([bases, twins])
        number = 2 * number + (twins > bases)
      want[number] += weight[b, n]
    np.testing.assert_allclose(masses[b], want, atol=1e-6)
  np.testing.assert_allclose(got[..., 1:], 0, atol=1e-5)
  without_road = np.where(labels == 0, 5, labels)
  assert not np.any(flips.mode_masses(whole(flips.flip_counts)(without_road, samples), weight))


def test_exact_modes_have_no_error_and_missed_pixels_count_only_when_asked():
  """Every mode as a sample with its weight; then half of the cars are taken for something else."""
  labels = np.array([[[0, 1, 8], [11, 13, 13]]])
  modes, weight = (
    np.array(whole(flips.modes)(labels)),
    flips.mode_weights()[None].astype(np.float32),
  )
  error = lambda maps, **kw: flips.frequency_error(
    np.sum(flips.weighted_counts(whole(flips.flip_counts)(labels, maps), weight), 0), **kw
  )
  assert error(modes) == pytest.approx(0, abs=1e-6)
  assert error(modes, pixels=True) == pytest.approx(0, abs=1e-6)
  modes[..., 1, 2] = 2
  assert error(modes) == pytest.approx(0, abs=1e-6)
  car = flips.FLIPS[2].probability
  assert error(modes, pixels=True) == pytest.approx((car / 2 + (1 - car) / 2) / 10, abs=1e-6)
