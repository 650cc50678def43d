"""Metrics for training loops: as the functions of everything at once, however it is cut."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clu import metrics as clu
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax import metrics
from car_jax.metrics import wide

VOID, CLASSES = 255, 3
SETS = dict(num_classes=CLASSES, ignore=VOID)
FUNCTIONS = {
  'GED': 'ged',
  'HMIoU': 'hm_iou',
  'DiceMax': 'dice_max',
  'DiceMatch': 'dice_match',
  'CRPSArea': 'crps_area',
  'Diversity': 'diversity',
  'NLL': 'nll',
  'Brier': 'brier',
  'DiceSoft': 'dice_soft',
  'ECE': 'ece',
  'AdaptiveECE': 'adaptive_ece',
  'KSError': 'ks_error',
  'Confusion': 'confusion',
  'MeanIoU': 'miou',
  'AUROC': 'auroc',
  'AUPR': 'aupr',
  'AveragePrecision': 'average_precision',
  'FPR95': 'fpr95',
  'PRR': 'prr',
  'AURC': 'aurc',
  'AUGRC': 'augrc',
}
OF_SETS = ('GED', 'HMIoU', 'DiceMax', 'DiceMatch', 'CRPSArea', 'Diversity')
MEANS = (*OF_SETS, 'NLL', 'Brier', 'DiceSoft')
BOUNDED = ('AdaptiveECE', 'KSError', 'AUROC', 'AUPR', 'AveragePrecision', 'FPR95', 'PRR', 'AURC')
BOUNDED += ('AUGRC',)
assert {*FUNCTIONS} == {n for home, of in metrics.HOMES.items() if 'clu' in home for n in of}


def outputs(seed=0, images=6):
  """What a model and its data give for a few images, one of them void."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, CLASSES, (images, 2, 4, 5))
  labels[rng.random(labels.shape) < 0.2] = VOID
  labels[1] = VOID
  probs = rng.dirichlet(np.full(CLASSES, 0.5), (images, 4, 5)).astype(np.float32)
  samples = rng.integers(0, CLASSES, (images, 3, 4, 5))
  counted = labels[:, 0] != VOID
  wrong = probs.argmax(-1) != labels[:, 0]
  more = dict(predicted=samples[:, 0], score=1 - probs.max(-1), positive=wrong, counted=counted)
  return dict(samples=samples, probs=probs, labels=labels, **more)


def configured(name):
  """The metric, the function, and which of the model's outputs the function takes."""
  metric, function = getattr(metrics, name), getattr(metrics, FUNCTIONS[name])
  options = {k: v for k, v in SETS.items() if k in metric.options}
  reads = dict.fromkeys(('NLL', 'Brier', 'DiceSoft', 'ECE', 'AdaptiveECE', 'KSError'), 'probs')
  reads |= dict(Confusion='predicted', MeanIoU='predicted')
  if name in OF_SETS:
    first = 'samples'
  else:
    first = reads.get(name, 'score')
  second = ('positive', 'counted') if first == 'score' else ('labels',)

  def of(given):
    kw = {k: given[k] for k in second[1:]}
    return function(given[first], given[second[0]], **kw, **options)

  return metric.with_options(**options), of


def cut(given, start, stop):
  return {k: v[start:stop] for k, v in given.items()}


def pieces(metric, given, cuts):
  ends = [0, *sorted(cuts), len(given['labels'])]
  return [metric.from_model_output(**cut(given, *pair)) for pair in itertools.pairwise(ends)]


def merged(parts):
  return functools.reduce(lambda a, b: a.merge(b), parts)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_all_batches_together_are_the_function_of_all_images(name):
  given = outputs()
  metric, function = configured(name)
  state = merged(pieces(metric, given, [2, 3]))
  want = function(given)
  want = np.nanmean(want) if name in MEANS else want
  bound = state.bound() if name in BOUNDED else 0
  assert bound < 0.05 or name == 'AdaptiveECE'  # see below
  np.testing.assert_allclose(state.compute(), want, atol=bound + 2e-6)
  if name in MEANS:
    assert state.images() == (5, 1)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_no_order_of_batches_changes_a_bit(name):
  metric, _ = configured(name)
  parts = pieces(metric, outputs(3), [1, 2, 4])
  want = merged(parts)
  for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
    again = merged([metric.empty(), *(parts[k] for k in order), metric.empty()])
    assert jax.tree.all(jax.tree.map(np.array_equal, again, want))
  tree = parts[0].merge(parts[1]).merge(parts[2].merge(parts[3]))
  np.testing.assert_array_equal(tree.compute(), want.compute())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sets(st.integers(1, 5)))
@pytest.mark.parametrize('name', ['GED', 'NLL', 'ECE', 'AdaptiveECE', 'Confusion', 'AURC'])
def test_no_cut_changes_a_value(name, seed, cuts):
  given, (metric, _) = outputs(seed), configured(name)
  whole, parts = metric.from_model_output(**given), merged(pieces(metric, given, cuts))
  exact = name not in MEANS  # where each image's own value is a float32
  same = lambda a, b: np.array_equal(a, b) if exact else np.abs(wide.int64(a) - wide.int64(b)) <= 6
  assert jax.tree.all(jax.tree.map(same, whole, parts))


@pytest.mark.parametrize('name', FUNCTIONS)
def test_padding_images_do_not_count(name):
  given, (metric, _) = outputs(), configured(name)
  mask = np.arange(6) < 4
  found = metric.from_model_output(**given, mask=mask)
  want = metric.from_model_output(**cut(given, 0, 4))
  np.testing.assert_allclose(found.compute(), want.compute(), atol=1e-6)
  assert name not in MEANS or found.images() == want.images() == (3, 1)
  with pytest.raises(ValueError, match=rf'{name}: mask must be \[6\], got shape \(5,\)'):
    metric.from_model_output(**given, mask=mask[1:])


def test_one_collection_takes_them_all_under_jit():
  classes = {name: configured(name)[0] for name in FUNCTIONS}
  Scores = clu.Collection.create(**classes)
  given = outputs()
  step = jax.jit(lambda scores, batch: scores.merge(Scores.single_from_model_output(**batch)))
  scores = Scores.empty()
  for start in (0, 2, 4):
    scores = step(scores, cut(given, start, start + 2))
  found = scores.compute()
  for name, metric in classes.items():
    want = metric.from_model_output(**given).compute()
    np.testing.assert_allclose(found[name], want, atol=2e-6)
  values = scores.compute_values()
  assert values['GED'].value == found['GED']


def test_devices_gather_and_reduce():
  given, metric = outputs(), configured('ECE')[0]
  Scores = clu.Collection.create(ece=metric)
  stacked = {k: jnp.stack([v[:3], v[3:]]) for k, v in given.items()}
  gather = jax.vmap(lambda b: Scores.gather_from_model_output(**b), axis_name='batch')
  each = gather(stacked)
  for device in range(2):
    found = jax.tree.map(lambda x: x[device], each)  # noqa: B023
    assert found.compute()['ece'] == metric.from_model_output(**given).compute()


def test_outputs_of_other_names_come_by_clus_from_fun():
  def errors(logits, truth, **_):
    probs = jax.nn.softmax(logits)
    return dict(score=1 - probs.max(-1), positive=logits.argmax(-1) != truth)

  @struct.dataclass
  class Scores(clu.Collection):
    failure: metrics.AUROC.from_fun(errors)

  logits = jnp.array([[[3.0, 0.0], [0.0, 0.2]], [[0.1, 0.0], [2.0, 0.0]]])
  truth = jnp.array([[0, 0], [1, 0]])
  mask = jnp.ones(2, bool)
  scores = jax.jit(Scores.single_from_model_output)(logits=logits, truth=truth, mask=mask)
  assert scores.compute()['failure'] == 1


def test_counts_do_not_overflow():
  """2^40 pixels, by doubling."""
  state = metrics.ECE.from_model_output(probs=[[0.25, 0.75]], labels=[1])
  ranks = metrics.AUROC.from_model_output(score=[0.1, 0.9], positive=[0, 1])
  matrix = metrics.Confusion.from_model_output(predicted=[1], labels=[0])
  mean = metrics.NLL.from_model_output(probs=[[0.25, 0.75]], labels=[1])
  for _ in range(40):
    state, ranks, matrix, mean = (m.merge(m) for m in (state, ranks, matrix, mean))
  assert wide.int64(state.pixels).sum() == 2**40
  assert state.compute() == 0.25
  assert ranks.compute() == 1
  assert matrix.compute().tolist() == [[0, 2**40], [0, 0]]
  assert mean.images() == (2**40, 0)
  assert mean.compute() == pytest.approx(-np.log(0.75), abs=1e-6)


def test_negative_scores_add_up():
  """The unbiased GED of samples that are the readers is below 0."""
  metric = metrics.GED.with_options(estimator='u')
  same = np.array([[[[0, 1]], [[1, 0]]]] * 3)
  state = merged([metric.from_model_output(samples=same, labels=same)] * 5)
  assert state.compute() == pytest.approx(metrics.ged(same[0], same[0], estimator='u'))
  assert state.compute() == -1


def test_large_areas_add_up():
  """Of 64 x 128 pixels, which are beyond 2^31 steps of 2^-20."""
  full, empty = np.ones((3, 1, 64, 128), int), np.zeros((3, 64, 128), int)
  state = metrics.CRPSArea.from_model_output(samples=full, labels=empty)
  assert merged([state] * 5).compute() == 64 * 128


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 1e-4, 1e4]), st.booleans())
def test_binned_scores_are_within_their_bound(seed, scale, tied):
  rng = np.random.default_rng(seed)
  score = rng.normal(0, scale, 60) if not tied else rng.integers(-2, 3, 60) * scale
  positive = score + rng.normal(0, scale, 60) > 0
  for name in BOUNDED[2:]:
    state = getattr(metrics, name).from_model_output(score=score, positive=positive)
    exact = getattr(metrics, FUNCTIONS[name])(score, positive)
    assert abs(state.compute() - exact) <= state.bound() + 1e-9
    assert not tied or state.compute() == pytest.approx(exact, abs=1e-12)


def test_binned_confidences_are_within_their_bound():
  """Which is small where pixels are many: near ends of bins it takes the worst of each pixel."""
  rng = np.random.default_rng(0)
  top = 1 / (1 + np.exp(-rng.gamma(2, 3, 200_000).astype(np.float32)))
  probs, labels = np.stack([1 - top, top], -1), (rng.random(top.shape) < top**1.2).astype(int)
  for name in BOUNDED[:2]:
    state = getattr(metrics, name).from_model_output(probs=probs, labels=labels)
    exact = getattr(metrics, FUNCTIONS[name])(probs, labels)
    assert exact > 0.005
    assert abs(state.compute() - exact) <= state.bound() < 0.004


def test_scores_that_share_a_bin_have_a_bound_that_says_so():
  score, positive = [0.5, 0.5 + 1e-5, 0.6], [1, 0, 1]
  state = metrics.AUROC.from_model_output(score=score, positive=positive)
  assert (metrics.auroc(score, positive), state.compute(), state.bound()) == (0.5, 0.75, 0.25)


def test_infinite_scores_are_the_outermost():
  state = metrics.AUROC.from_model_output(score=[-np.inf, 0, np.inf], positive=[0, 0, 1])
  assert state.compute() == 1


def test_what_jit_cannot_refuse_compute_does():
  score = jnp.array([0.1, jnp.nan, 0.3])
  state = jax.jit(metrics.PRR.from_model_output)(score=score, positive=score > 0.2)
  with pytest.raises(ValueError, match='PRR: 1 scores are nan'):
    state.merge(metrics.PRR.empty()).compute()
  matrix = jax.jit(metrics.MeanIoU.from_model_output)(predicted=jnp.array([1, 2]), labels=[1, 1])
  with pytest.raises(ValueError, match='MeanIoU: 1 ids are not in 0 to 1'):
    matrix.compute()


@pytest.mark.parametrize('name', FUNCTIONS)
def test_nothing_is_nan(name):
  metric, _ = configured(name)
  found = metric.empty().compute()
  assert np.all(np.isnan(found)) if name != 'Confusion' else not found.any()


def test_options_are_those_of_the_function():
  assert metrics.GED.options['estimator'] == 'v'
  again = metrics.GED.with_options(estimator='u', classes=[1])
  assert again is metrics.GED.with_options(classes=(1,), estimator='u')
  further = again.with_options(ignore=VOID).options
  assert {'estimator': 'u', 'classes': (1,), 'ignore': VOID}.items() <= further.items()
  assert again.__name__ == 'GED'
  with pytest.raises(TypeError, match="ECE has no option 'bins'\n  did you mean: num_bins"):
    metrics.ECE.with_options(bins=3)
  with pytest.raises(TypeError, match="AUROC has no option 'num_bins'\n  known: none"):
    metrics.AUROC.with_options(num_bins=3)


def test_a_wrong_shape_is_said_under_jit():
  with pytest.raises(ValueError, match=r'ECE: probs must be \[N, C\] or'):
    jax.jit(metrics.ECE.from_model_output)(probs=jnp.ones(3), labels=jnp.ones(2, int))
