"""Functions for notebooks against loops and scikit-learn, for any kind of array."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from car_jax import metrics
from car_jax.metrics import functional
from tests.metrics import oracle

SEEDS = st.integers(0, 10_000)
SETS = (metrics.ged, metrics.hm_iou, metrics.dice_max, metrics.diversity)
SETS += (metrics.dice_match, metrics.crps_area)
OF_PROBS = (metrics.ece, metrics.adaptive_ece, metrics.ks_error, metrics.nll, metrics.brier)
OF_PROBS += (metrics.dice_soft,)
OF_MAPS = (metrics.confusion, metrics.iou, metrics.miou)
OF_SCORES = tuple(getattr(metrics, n) for n in metrics.HOMES['functional.rankings'])
VOID = 255


class OnlyDLPack:
  """As a tensor of another library."""

  def __init__(self, x):
    self._x = np.asarray(x)

  def __dlpack__(self, **kw):
    return self._x.__dlpack__(**kw)

  def __dlpack_device__(self):
    return self._x.__dlpack_device__()


class OnlyArray:
  def __init__(self, x):
    self._x = x

  def __array__(self, dtype=None, copy=None):
    return np.asarray(self._x, dtype)


KINDS = (np.asarray, np.ndarray.tolist, jnp.asarray, OnlyDLPack, OnlyArray)


def drawn(seed=0, images=2, classes=3, void=0.2):
  """samples [B, 4, 5, 6], labels [B, 3, 5, 6] with void pixels, probs [B, 5, 6, C]"""
  rng = np.random.default_rng(seed)
  samples = rng.integers(0, classes, (images, 4, 5, 6))
  labels = rng.integers(0, classes, (images, 3, 5, 6))
  labels[rng.random(labels.shape) < void] = VOID
  probs = rng.dirichlet(np.full(classes, 0.6), (images, 5, 6)).astype(np.float32)
  return samples, labels, probs


def calls(seed=0):
  """Every function with arguments of a batch of two images: name -> (function, arrays, options)."""
  samples, labels, probs = drawn(seed)
  of_three = dict(num_classes=3, ignore=VOID)
  score, positive = probs[..., 0], labels[:, 0] == 1
  found = dict.fromkeys(SETS, ((samples, labels), of_three))
  found |= dict.fromkeys(OF_PROBS, ((probs, labels), dict(ignore=VOID)))
  found |= dict.fromkeys(OF_MAPS, ((samples[:, 0], labels), of_three))
  found |= dict.fromkeys(OF_SCORES, ((score, positive), {}))
  return {f.__name__: (f, *rest) for f, rest in found.items()}


CALLS = calls()
assert {*CALLS} == {n for h, names in metrics.HOMES.items() if 'functional' in h for n in names}
per_image = {f.__name__ for f in SETS} | {'nll', 'brier', 'dice_soft'}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', CALLS)
def test_any_kind_of_array_gives_the_same(name, kind):
  function, arrays, options = CALLS[name]
  np.testing.assert_array_equal(
    function(*map(kind, arrays), **options), function(*arrays, **options)
  )


@pytest.mark.parametrize('name', CALLS)
def test_an_image_alone_scores_as_in_a_batch(name):
  function, arrays, options = CALLS[name]
  both = function(*arrays, **options)
  each = [function(*(x[i] for x in arrays), **options) for i in range(2)]
  if name in per_image:
    assert both.dtype == np.float64
    assert all(type(x) is float for x in each)
    np.testing.assert_allclose(both, each, rtol=1e-6)
  elif name == 'confusion':
    np.testing.assert_allclose(both, sum(each), rtol=1e-12)
  else:
    assert type(both) is np.ndarray if name == 'iou' else type(both) is float
    assert not np.allclose(both, each[0])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(['one', 'zero', 'skip']), st.sampled_from(['void', 'class']))
def test_sets_equal_loops(seed, absent, ignored):
  samples, labels, _ = drawn(seed, images=1)
  options = dict(absent=absent, ignore=VOID, ignored=ignored)
  how = dict(classes=(0, 1, 2), **options)
  pairs = [f for f in SETS if f is not metrics.crps_area]
  found = {f.__name__: f(samples[0], labels[0], num_classes=3, **options) for f in pairs}
  ged, _, d_ss, _ = oracle.energy(samples[0], labels[0], **how)
  want = dict(ged=ged, diversity=d_ss, hm_iou=oracle.matched_iou(samples[0], labels[0], **how))
  want['dice_max'] = oracle.best_dice(samples[0], labels[0], **how)
  want['dice_match'] = oracle.matched_dice(samples[0], labels[0], **how)
  for name, value in want.items():
    assert found[name] == pytest.approx(value, abs=2e-6, nan_ok=True), name


def test_classes_are_the_foreground_of_two_else_all():
  samples, labels, _ = drawn(classes=2, void=0)
  assert (metrics.ged(samples, labels) == metrics.ged(samples, labels, classes=[1])).all()
  assert (metrics.ged(samples, labels) != metrics.ged(samples, labels, classes=(0, 1))).any()
  three = metrics.ged(samples, labels, num_classes=3)
  assert (three == metrics.ged(samples, labels, num_classes=3, classes=(0, 1, 2))).all()
  without = metrics.ged(samples, labels, num_classes=3, ignore=2)
  assert (without == metrics.ged(samples, labels, num_classes=3, classes=(0, 1), ignore=2)).all()
  assert metrics.miou(samples[:, 0], labels) == metrics.iou(samples[:, 0], labels)[1]


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from('vu'), st.sampled_from(['one', 'zero', 'skip']))
def test_areas_and_soft_dice_equal_loops(seed, estimator, absent):
  samples, labels, probs = drawn(seed)
  areas = metrics.crps_area(samples, labels, num_classes=3, estimator=estimator, ignore=VOID)
  how = dict(absent=absent, ignore=VOID)
  dice = metrics.dice_soft(probs, labels, classes=(1, 2), **how)
  for i in range(2):
    want = oracle.area_crps(samples[i], labels[i], range(3), estimator, VOID)
    assert areas[i] == pytest.approx(want, abs=1e-5)
    limits = (0.1, 0.3, 0.5, 0.7, 0.9)
    want = oracle.soft_dice(probs[i], labels[i], (1, 2), limits, **how)
    assert dice[i] == pytest.approx(want, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 20))
def test_calibration_equals_loops(seed, bins):
  _, labels, probs = drawn(seed)
  votes = [(labels == c).sum(1) for c in range(3)]
  voters = np.sum(votes, 0)
  share = np.moveaxis(np.array(votes) / np.maximum(voters, 1), 0, -1)
  seen, top = voters > 0, probs.argmax(-1)
  hits = np.take_along_axis(share, top[..., None], -1)[..., 0]
  options = dict(ignore=VOID)
  want = oracle.ece(probs.max(-1), hits, seen, bins)
  assert metrics.ece(probs, labels, num_bins=bins, **options) == pytest.approx(want, abs=1e-6)
  want = oracle.ece(probs[..., 2], share[..., 2], seen, bins)
  found = metrics.ece(probs, labels, num_bins=bins, class_id=2, **options)
  assert found == pytest.approx(want, abs=1e-6)
  logs = -np.sum(share * np.log(np.maximum(probs, 1e-7)), -1)
  squares = np.sum(probs**2 - 2 * probs * share, -1) + 1
  mean = lambda x: [x[i][seen[i]].mean() for i in range(2)]
  np.testing.assert_allclose(metrics.nll(probs, labels, **options), mean(logs), rtol=1e-5)
  np.testing.assert_allclose(metrics.brier(probs, labels, **options), mean(squares), rtol=1e-5)


def test_sorted_calibration_errors_by_hand():
  probs = np.stack([np.arange(1, 9) / 20, 1 - np.arange(1, 9) / 20], -1)  # class 1: .95 .. .6
  labels = np.array([1, 1, 0, 1, 0, 1, 0, 0])
  gaps = probs[:, 1] - labels
  halves = abs(gaps[:4].sum()) + abs(gaps[4:].sum())
  assert metrics.adaptive_ece(probs, labels, num_bins=2) == pytest.approx(halves / 8, abs=1e-6)
  running = np.abs(np.cumsum(gaps[::-1])).max()
  assert metrics.ks_error(probs, labels) == pytest.approx(running / 8, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([3, 1000]))
def test_rankings_equal_scikit_learn(seed, levels):
  rng = np.random.default_rng(seed)
  positive = rng.random((6, 7)) < 0.4
  score = np.round((rng.random((6, 7)) + positive * 0.3) * levels) / levels
  counted = rng.random((6, 7)) < 0.8
  positive.flat[:2], counted.flat[:2] = (True, False), True
  a, b = positive[counted], score[counted]
  found = {f.__name__: f(score, positive, counted=counted) for f in OF_SCORES}
  assert found['auroc'] == pytest.approx(sklearn.roc_auc_score(a, b), abs=1e-12)
  want = sklearn.average_precision_score(a, b)
  assert found['average_precision'] == pytest.approx(want, abs=1e-12)
  precision, recall, _ = sklearn.precision_recall_curve(a, b)
  assert found['aupr'] == pytest.approx(sklearn.auc(recall, precision), abs=1e-12)
  false, true, _ = sklearn.roc_curve(a, b, drop_intermediate=False)
  assert found['fpr95'] == pytest.approx(false[np.argmax(true >= 0.95)], abs=1e-12)
  error = {x: a[b == x].mean() for x in b}  # of each among equals the mean
  kept = np.cumsum([error[x] for x in np.sort(b)]) / np.arange(1, a.size + 1)
  assert found['aurc'] == pytest.approx(kept.mean(), abs=1e-9)
  sure, best, worst = -b, a.astype(float), -a.astype(float)
  assert metrics.prr(best, a) == pytest.approx(1)
  assert metrics.prr(worst, a) < found['prr'] <= 1
  assert metrics.auroc(sure, a) == pytest.approx(1 - found['auroc'])


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_confusion_equals_scikit_learn(seed):
  rng = np.random.default_rng(seed)
  truth, said = rng.integers(0, 4, (2, 3, 9)), rng.integers(0, 4, (2, 3, 9))
  truth[:, 0, :4] = said[:, 0, :4] = range(4)
  matrix = sklearn.confusion_matrix(truth.ravel(), said.ravel())
  np.testing.assert_array_equal(metrics.confusion(said, truth, num_classes=4), matrix)
  each = sklearn.jaccard_score(truth.ravel(), said.ravel(), average=None)
  np.testing.assert_allclose(metrics.iou(said, truth, num_classes=4), each)
  assert metrics.miou(said, truth, num_classes=4) == pytest.approx(each.mean())
  void = rng.random(truth.shape) < 0.3
  matrix = sklearn.confusion_matrix(truth[~void], said[~void], labels=range(4))
  truth[void], said[void] = VOID, 77  # what is said of void pixels does not matter
  found = metrics.confusion(said, truth, num_classes=4, ignore=VOID)
  np.testing.assert_array_equal(found, matrix)
  several = np.stack([truth, truth], 1)
  np.testing.assert_allclose(metrics.confusion(said, several, num_classes=4, ignore=VOID), matrix)


def test_weights_of_zero_are_padding():
  samples, labels, probs = drawn()
  labels[:, 2] = 99  # no class, and nobody reads it
  weight, how = [1, 1, 0], dict(ignore=VOID)
  for f in SETS:
    found = f(samples, labels, label_weight=weight, num_classes=3, **how)
    assert (found == f(samples, labels[:, :2], num_classes=3, **how)).all()
    found = f(samples, labels[:, :2], sample_weight=[[1, 1, 0, 0]] * 2, num_classes=3, **how)
    np.testing.assert_allclose(
      found, f(samples[:, :2], labels[:, :2], num_classes=3, **how), atol=1e-6
    )
  for f in OF_PROBS:
    found = f(probs, labels, label_weight=weight, **how)
    np.testing.assert_allclose(found, f(probs, labels[:, :2], **how))
  nobody = metrics.ged(samples, labels, label_weight=[[1, 1, 0], [0, 0, 0]], num_classes=3, **how)
  assert np.isnan(nobody).tolist() == [False, True]


def test_where_nothing_counts_there_is_no_value():
  samples, labels, probs = drawn()
  void = np.full_like(labels, VOID)
  garbage = np.full_like(probs, np.nan)
  for f in SETS:
    assert np.isnan(f(samples, void, num_classes=3, ignore=VOID)).all()
  for f in OF_PROBS:
    assert np.isnan(f(garbage, void, ignore=VOID)).all()
  for f in OF_SCORES:
    assert np.isnan(f(garbage, np.ones(probs.shape, bool), counted=np.zeros(probs.shape, bool)))
    assert np.isnan(f([], np.zeros(0, bool)))
  assert metrics.confusion(samples[:, 0], void, num_classes=3, ignore=VOID).sum() == 0
  assert np.isnan(metrics.miou(samples[:, 0], void, num_classes=3, ignore=VOID))
  assert metrics.ged(samples[:0], labels[:0]).shape == (0,)
  assert metrics.hm_iou(samples[:0], labels[:0]).shape == (0,)
  assert metrics.nll(probs[:0], labels[:0]).shape == (0,)
  assert np.isnan(metrics.ece(probs[:0], labels[:0]))


def test_one_reader_needs_no_axis():
  samples, labels, probs = drawn(void=0)
  one, first = labels[:, 0], labels[:, :1]
  for f in SETS:
    assert (f(samples, one, num_classes=3) == f(samples, first, num_classes=3)).all()
  for f in OF_PROBS:
    np.testing.assert_array_equal(f(probs, one), f(probs, first))
  pixels = probs[0].reshape(-1, 3), labels[0].reshape(3, -1)
  assert metrics.nll(*pixels) == pytest.approx(metrics.nll(probs[0], labels[0]), rel=1e-6)
  assert metrics.ece(*pixels) == metrics.ece(probs[0], labels[0])


def test_under_jit_they_are_traced():
  samples, labels, probs = drawn()
  ged = jax.jit(lambda s, y: metrics.ged(s, y, num_classes=3, ignore=VOID))
  want = metrics.ged(samples, labels, num_classes=3, ignore=VOID)
  np.testing.assert_allclose(ged(samples, labels), want, rtol=1e-6)
  nll = jax.jit(lambda p, y: metrics.nll(p, y, ignore=VOID))
  np.testing.assert_allclose(
    nll(probs[0], labels[0]), metrics.nll(probs[0], labels[0], ignore=VOID), rtol=1e-6
  )
  with pytest.raises(ValueError, match=r'ged: samples must be \[N, H, W\]'):
    ged(samples[0, 0], labels)


def test_half_precision_probabilities_are_read():
  _, labels, probs = drawn(void=0)
  for kind in (np.float16, jnp.bfloat16):
    found = metrics.nll(jnp.asarray(probs, kind), labels)
    np.testing.assert_allclose(found, metrics.nll(probs, labels), rtol=0.05)


def test_as_many_readers_as_pixels_as_classes_are_taken_as_that():
  probs = np.eye(4)[[0, 1, 2, 3]] * 0.7 + 0.075
  readers = np.tile(np.arange(4), (4, 1))
  assert metrics.ece(probs, readers) == pytest.approx(1 - 0.775)


def test_each_docstring_says_the_name_of_the_convention():
  from car_jax.metrics import stochastic

  for f in SETS:
    spread = dict(estimator='v') if 'estimator' in inspect.signature(f).parameters else {}
    absent = None if f is metrics.crps_area else 'one'
    how = dict(classes=(1,), num_classes=2, absent=absent, **spread)
    name = stochastic.convention(f.__name__, 16, **how)
    assert f.__doc__.startswith(f'{name}: ')
  assert functional.__doc__
