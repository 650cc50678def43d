import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import stochastic
from tests.metrics import oracle
from tests.whole import whole

LIDC = dict(classes=(1,))
CITYSCAPES = dict(classes=(0, 2, 3), absent='skip', ignore=4, ignored='class')
VOID = CITYSCAPES | dict(ignored='void')
B, N, M, H, W = 3, 4, 3, 5, 4


compare = jax.jit(stochastic.compare, static_argnames=('classes', 'absent', 'ignore', 'ignored'))


@jax.jit
def by_estimator(compared):
  """Compiled once for all conventions: these end in `compare`."""
  best = {'hm': stochastic.hm_iou(compared), 'max_dice': stochastic.max_dice(compared)}
  found = {}
  for name in ('v', 'u'):
    found[name] = stochastic.ged(compared, estimator=name)._asdict() | best
    found[name]['dice'] = stochastic.ged(compared, estimator=name, distance='dice').ged
  return found


def every_score(
  samples, readers, sample_weight=None, reader_weight=None, estimator='v', **conventions
):
  weights = dict(sample_weight=sample_weight, reader_weight=reader_weight)
  return by_estimator(compare(samples, readers, **weights, **conventions))[estimator]


def maps(seed, shape=(B, N, H, W), classes=5):
  """Random label maps; some are made empty, some without a pixel that is scored."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, shape)
  labels[rng.random(shape[:2]) < 0.2] = 0
  labels[rng.random(shape[:2]) < 0.1] = classes - 1
  return labels.astype(np.int32)


def equal(ours, theirs, atol=2e-5):
  for name in ours:
    np.testing.assert_allclose(ours[name], theirs[name], atol=atol, err_msg=name)


seeds = given(st.integers(0, 2**32 - 1))
some = settings(max_examples=8, deadline=None)


@pytest.mark.parametrize('conventions', [LIDC, CITYSCAPES, VOID])
@pytest.mark.parametrize('estimator', ['v', 'u'])
@some
@seeds
def test_scores_are_their_definitions(conventions, estimator, seed):
  samples, readers = maps([seed, 0]), maps([seed, 1], (B, M, H, W))
  ours = every_score(samples, readers, estimator=estimator, **conventions)
  for i in range(B):
    s, y = samples[i], readers[i]
    want = oracle.energy(s, y, estimator, **conventions)
    np.testing.assert_allclose([ours[k][i] for k in stochastic.GED._fields], want, atol=1e-5)
    dice = oracle.energy(s, y, estimator, distance='dice', **conventions)[0]
    np.testing.assert_allclose(ours['dice'][i], dice, atol=1e-5)
    # One undefined pair makes an image nan, and hides nothing from any score.
    undefined = np.isnan(oracle.between(s, y, **conventions)).any()
    hm = np.nan if undefined else oracle.matched_iou(s, y, **conventions)
    np.testing.assert_allclose(ours['hm'][i], hm, atol=1e-5)
    best = np.nan if undefined else oracle.best_dice(s, y, **conventions)
    np.testing.assert_allclose(ours['max_dice'][i], best, atol=1e-5)


@some
@seeds
def test_order_of_samples_and_of_readers_does_not_matter(seed):
  samples, readers = maps([seed, 0]), maps([seed, 1], (B, M, H, W))
  rng = np.random.default_rng(seed)
  shuffled = samples[:, rng.permutation(N)], readers[:, rng.permutation(M)]
  equal(every_score(*shuffled, **LIDC), every_score(samples, readers, **LIDC))


@some
@seeds
def test_ranges(seed):
  samples, readers = maps([seed, 0]), maps([seed, 1], (B, M, H, W))
  ours = every_score(samples, readers, **LIDC)
  for name in ('d_ys', 'd_ss', 'd_yy', 'hm', 'max_dice'):
    assert np.all((ours[name] >= 0) & (ours[name] <= 1 + 1e-6)), name
  assert np.all((ours['ged'] >= -1e-6) & (ours['ged'] <= 2))  # an energy distance


@some
@seeds
def test_the_readers_as_samples_are_perfect(seed):
  readers = maps([seed, 1], (B, N, H, W))
  ours = every_score(readers, readers, **LIDC)
  np.testing.assert_allclose(ours['ged'], 0, atol=1e-6)
  np.testing.assert_allclose([ours['hm'], ours['max_dice']], 1, atol=1e-6)


@some
@seeds
def test_batches_may_be_split(seed):
  samples, readers = maps([seed, 0]), maps([seed, 1], (B, M, H, W))
  at_once = every_score(samples, readers, **LIDC)
  for i in range(B):
    part = every_score(samples[i : i + 1], readers[i : i + 1], **LIDC)
    equal(part, {name: value[i : i + 1] for name, value in at_once.items()}, atol=1e-6)


@some
@seeds
def test_a_weight_is_a_number_of_repetitions(seed):
  """Weights 3, 1, 0, .. say the same as maps repeated 3, 1, 0, .. times ('v' counts self pairs)."""
  rng = np.random.default_rng(seed)
  samples, readers = maps([seed, 0]), maps([seed, 1], (B, M, H, W))
  times_s, times_y = rng.permutation([3, 2, 1, 0]), rng.permutation([4, 2, 0])
  weighted = every_score(
    samples, readers, np.tile(times_s, (B, 1)) / 6.0, np.tile(times_y, (B, 1)) / 1.0, **LIDC
  )
  repeated = every_score(np.repeat(samples, times_s, 1), np.repeat(readers, times_y, 1), **LIDC)
  equal(weighted, repeated)


@pytest.mark.parametrize('estimator', ['v', 'u'])
def test_images_of_a_batch_may_differ_in_their_readers(estimator):
  """Padding readers have weight 0, whatever they hold: also where their pairs are nan."""
  samples, readers = maps(0), maps(1, (B, M, H, W))
  readers[:, 2] = 4  # every pixel ignored: an undefined pair, were it not padding
  samples[:], readers[:, :2] = np.where(samples == 4, 0, samples), readers[:, :2] % 4
  weight = np.array([[0.5, 0.5, 0]] * B, np.float32)
  ours = every_score(samples, readers, None, weight, estimator=estimator, **CITYSCAPES)
  want = every_score(samples, readers[:, :2], estimator=estimator, **CITYSCAPES)
  equal(ours, want, atol=1e-6)
  mixed = weight.copy()
  mixed[0] = 1, 0, 0
  ours = every_score(samples, readers, None, mixed, **CITYSCAPES)
  equal(
    {k: v[1:] for k, v in ours.items()},
    {k: v[1:] for k, v in every_score(samples, readers[:, :2], **CITYSCAPES).items()},
    atol=1e-6,
  )
  want = every_score(samples[:1], readers[:1, :1], **CITYSCAPES)
  equal({k: v[:1] for k, v in ours.items()}, want, atol=1e-6)


def test_an_image_without_readers_is_nan_alone():
  samples, readers = maps(0), maps(1, (B, M, H, W))
  weight = np.ones((B, M), np.float32)
  weight[1] = 0
  ours = every_score(samples, readers, None, weight, **LIDC)
  for name in ('ged', 'd_ys', 'd_yy', 'hm', 'max_dice'):
    np.testing.assert_array_equal(np.isnan(ours[name]), [False, True, False], err_msg=name)


FULL, EMPTY, HALF = np.ones((4, 4), int), np.zeros((4, 4), int), np.tri(4, dtype=int)


def one(samples, readers, estimator='v', **conventions):
  stack = lambda x: np.stack(x)[None].astype(np.int32)
  ours = every_score(stack(samples), stack(readers), estimator=estimator, **conventions)
  return {name: float(value[0]) for name, value in ours.items()}


def test_all_maps_empty():
  ours = one([EMPTY] * 2, [EMPTY] * 2, **LIDC)
  assert (ours['ged'], ours['hm'], ours['max_dice']) == (0, 1, 1)
  skipped = one([EMPTY] * 2, [EMPTY] * 2, classes=(1,), absent='skip')
  assert all(np.isnan(value) for value in skipped.values())


def test_one_of_two_samples_empty():
  ours = one([EMPTY, FULL], [FULL, FULL], **LIDC)
  assert (ours['d_ys'], ours['d_ss'], ours['d_yy']) == (0.5, 0.5, 0)
  assert (ours['ged'], ours['hm'], ours['max_dice']) == (0.5, 0.5, 1)


def test_every_pixel_ignored():
  published = dict(classes=(1,), ignore=2, ignored='class')
  ours = one([FULL * 2] * 2, [FULL] * 2, absent='skip', **published)
  assert np.isnan(ours['ged'])
  assert np.isnan(ours['hm'])
  assert one([FULL * 2] * 2, [FULL] * 2, absent='one', **published)['ged'] == 0
  with_one = one([FULL] * 2, [FULL * 2] * 2, classes=(1,), absent='one', ignore=2)
  assert all(np.isnan(value) for value in with_one.values())


HALVES = np.int32([[1, 0, 255, 255]] * 2)  # nobody knows the right half


def test_no_score_looks_where_nobody_knows():
  samples = np.stack([np.where(HALVES == 255, of, HALVES) for of in ([1], [0], [1])])
  samples[0, :, 3] = 0
  readers = np.stack([HALVES] * 3)
  ours = one(samples, readers, classes=(1,), ignore=255)
  assert (ours['ged'], ours['d_ss'], ours['d_ys'], ours['d_yy']) == (0, 0, 0, 0)
  assert (ours['hm'], ours['max_dice'], ours['dice']) == (1, 1, 0)
  fixed = dict(classes=(1,), ignore=255)
  for found in whole(stochastic.diversity)(samples[None], readers[None], **fixed):
    np.testing.assert_array_equal(found, [0])
  share = whole(stochastic.pixel_variance)(samples[None], classes=(1,))
  assert share > 0  # without the readers these pixels would have counted


def test_a_reader_abstains_alone():
  """What one reader leaves open counts for the other, and a sample that says nothing there errs."""
  some, every = HALVES, np.int32([[1, 0, 1, 1]] * 2)
  ours = one([every], [some, every], classes=(1,), ignore=255)
  assert (ours['d_ys'], ours['d_yy'], ours['hm']) == (0, 0, 1)
  shirks = one([some], [some, every], classes=(1,), ignore=255)
  assert shirks['d_ys'] == pytest.approx((0 + 2 / 3) / 2)
  silent = one([every], [every, np.full_like(every, 255)], classes=(1,), ignore=255)
  alone = one([every], [every], classes=(1,), ignore=255)
  equal(silent, alone)
  apart = one([every], [some, some[:, ::-1]], classes=(1,), ignore=255)
  assert np.isnan(apart['d_yy'])  # no pixel that both readers know
  assert apart['hm'] == pytest.approx((1 + 1) / 2 - 0.25)


def test_readers_as_samples_without_others():
  readers = np.stack([HALVES, np.int32([[0, 1, 255, 255]] * 2)])[None]
  found = whole(stochastic.diversity)(readers, classes=(1,), ignore=255)
  np.testing.assert_allclose([*found], [[0.5], [0.25]])


def test_a_rule_of_another_name_is_refused():
  with pytest.raises(ValueError, match="not 'reader'"):
    stochastic.compare(maps(0), maps(1), classes=(1,), ignore=4, ignored='reader')


def test_one_sample_and_one_reader():
  ours = one([HALF], [FULL], **LIDC)
  assert ours['ged'] == pytest.approx(2 * (1 - 10 / 16))
  assert ours['hm'] == pytest.approx(10 / 16)
  assert ours['max_dice'] == pytest.approx(20 / 26)
  unbiased = one([HALF], [FULL], 'u', **LIDC)
  assert unbiased['d_ys'] == pytest.approx(1 - 10 / 16)
  assert np.isnan([unbiased['ged'], unbiased['d_ss'], unbiased['d_yy']]).all()


@pytest.mark.slow
def test_unbiased_estimator_has_one_expectation_and_the_published_one_falls():
  """Draws from a known distribution over five masks; its distances are known exactly."""
  rng, images = np.random.default_rng(0), 1500
  masks = (rng.random((5, 1, 12)) < rng.random((5, 1, 1))).astype(np.int32)
  share = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
  readers = masks[[0, 1, 1, 3]]
  far = oracle.distances(masks, **LIDC)
  among = share @ far @ share
  fixed = oracle.energy(readers, readers, 'u', **LIDC)[3]
  truth = 2 * np.mean(far[[0, 1, 1, 3]] @ share) - among - fixed
  means = {}
  for n in (4, 32):
    samples = masks[rng.choice(5, (images, n), p=share)]
    batch = samples, np.broadcast_to(readers, (images, *readers.shape))
    compared = compare(*batch, **LIDC)
    unbiased, spread = np.asarray(whole(stochastic.ged)(compared, estimator='u'))[[0, 2]]
    tolerance = float(4 * unbiased.std() / images**0.5)
    assert unbiased.mean() == pytest.approx(truth, abs=tolerance)
    published = np.asarray(whole(stochastic.ged)(compared).ged)
    means[n] = np.mean(published)
    # the two differ by the self pairs, exactly
    np.testing.assert_allclose(published, unbiased + spread / n + fixed / 4, atol=1e-5)
  assert means[4] - means[32] == pytest.approx(among * (1 / 4 - 1 / 32), abs=0.02)


def test_scores_from_one_comparison_equal_scores_from_maps():
  samples, readers = maps(0), maps(1, (B, M, H, W))
  want = every_score(samples, readers, **LIDC)
  equal(whole(stochastic.ged)(samples, readers, **LIDC)._asdict(), want, atol=1e-6)
  np.testing.assert_allclose(
    whole(stochastic.hm_iou)(samples, readers, **LIDC), want['hm'], atol=1e-6
  )
  compared = compare(samples, readers, **LIDC)
  with pytest.raises(TypeError, match=r"also got \['classes'\]"):
    stochastic.ged(compared, **LIDC)


def test_small_integers_score_the_same():
  samples, readers = maps(0), maps(1, (B, M, H, W))
  want = every_score(samples, readers, **CITYSCAPES)
  small = every_score(samples.astype(np.uint8), readers.astype(np.uint8), **CITYSCAPES)
  equal(small, want, atol=0)


def test_unknown_options_are_named():
  samples, readers = maps(0), maps(1, (B, M, H, W))
  with pytest.raises(ValueError, match="'v' or 'u', not 'w'"):
    stochastic.ged(samples, readers, estimator='w', **LIDC)
  with pytest.raises(ValueError, match="'iou' or 'dice', not 'l2'"):
    stochastic.ged(samples, readers, distance='l2', **LIDC)


@pytest.mark.parametrize('estimator', ['v', 'u'])
def test_diversity_of_samples_and_of_readers(estimator):
  samples, readers = maps(0), maps(1, (B, M, H, W))
  want = every_score(samples, readers, estimator=estimator, **LIDC)
  for of, key in ((samples, 'd_ss'), (readers, 'd_yy')):
    got = whole(stochastic.diversity)(of, estimator=estimator, **LIDC)
    np.testing.assert_allclose(got.d_ss, want[key], atol=1e-6)
    variance = whole(stochastic.pixel_variance)(of, **LIDC)
    np.testing.assert_array_equal(got.pixel_variance, variance)


def test_pixel_variance_is_its_definition():
  samples, weight = maps(0), np.array([[1, 2, 0, 1]] * B) / 4
  got = whole(stochastic.pixel_variance)(samples, classes=(1, 3), sample_weight=weight)
  share = np.stack([np.einsum('bnhw,bn->bhw', samples == k, weight) for k in (1, 3)])
  np.testing.assert_allclose(got, (share * (1 - share)).sum(0).mean((1, 2)), atol=1e-6)
  alike = np.repeat(samples[:, :1], N, 1)
  np.testing.assert_allclose(whole(stochastic.pixel_variance)(alike, classes=(1, 3)), 0, atol=1e-7)


@pytest.mark.parametrize(
  ('options', 'want'),
  [
    (dict(classes=(1,), num_classes=2, estimator='v'), 'ged16[v,absent=1,fg]'),
    (dict(classes=(0, 1), num_classes=2, estimator='u'), 'ged16[u,absent=1,all]'),
    (dict(classes=(1, 3), num_classes=5), 'ged16[absent=1,classes=1+3]'),
    (
      dict(classes=(1,), num_classes=2, estimator='v', distance='dice', absent='skip', ignore=24),
      'ged16[v,absent=skip,fg,dice,ignore=24]',
    ),
    (dict(classes=(1,), num_classes=2, ignore=24, ignored='class'), 'ged16[absent=1,fg,class=24]'),
  ],
)
def test_convention_names_everything_that_changes_the_number(options, want):
  assert stochastic.convention('ged', 16, **options) == want
