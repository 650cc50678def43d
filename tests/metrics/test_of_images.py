"""Do images that fail look unsure? Against plain loops over images, and in corner cases."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from car_jax.errors import UserError
from car_jax.evaluate import cell, engine
from car_jax.metrics import aggregate, catalogue, of_images, selective
from car_jax.metrics.base import Traits
from car_jax.metrics.catalogue import Setting
from car_jax.metrics.image_texts import CONFIDENCES
from tests.evaluate.test_engine import SAMPLES, VOID, images, stream

AREAS = tuple(f'image_aurc[{c}]' for c in CONFIDENCES)
OTHERS = ('image_eaurc', 'image_augrc', 'image_aurc[soft_dice,trapezoid]')
OTHERS += ('failure_auroc[soft_dice,risk=0.43]', 'image_spearman[pairwise_dice]')
NAMES = AREAS + OTHERS
HARD = 4


@functools.cache
def metrics(names=NAMES, classes=3, **more):
  setting = Setting(class_names=tuple('abc'[:classes]), ignore=VOID, samples=SAMPLES, **more)
  return catalogue.metrics(names, setting)


def varied(count, classes=3, **more):
  """Images of which some are easy: the label's own class gets more of the probability."""
  arrays = images(count, classes, **more)
  ease = np.random.default_rng(1).random(count)[:, None, None, None]
  truth = np.eye(classes)[np.clip(arrays['truth'][:, 0], 0, classes - 1)]
  arrays['mean'] = softmax(np.log(arrays['mean']) + HARD * ease * truth, -1).astype(np.float32)
  return arrays


def counted(arrays, names=NAMES, cuts=(), classes=3, order=None):
  made = metrics(names, classes)
  return engine.count(stream(arrays, cuts, order=order), made)['m'], made


def dice(a, b, where, classes):
  """Mean over the classes that either has; 1 without any."""
  pairs = [((a == c) & where, (b == c) & where) for c in classes]
  each = [2 * np.sum(x & y) / (x.sum() + y.sum()) for x, y in pairs if x.any() or y.any()]
  return np.mean(each) if each else 1.0


def by_hand(arrays, classes=(0, 1, 2)):
  """Risk and confidences of each image, one after the other."""
  rows = {k: [] for k in ('risk', *CONFIDENCES)}
  for k in range(len(arrays['truth'])):
    mean, truth = arrays['mean'][k].astype(float), arrays['truth'][k]
    known = (truth != VOID) & ~arrays['unknown'][k]
    said, seen = mean.argmax(-1), known.any(0)
    pairs = zip(truth, known, strict=True)
    rows['risk'].append(1 - np.mean([dice(said, t, w, classes) for t, w in pairs]))
    u = -np.sum(mean * np.log(mean), -1) / np.log(mean.shape[-1])
    where = seen & np.isin(said, classes)
    rows['foreground'].append(-u[where if where.any() else seen].mean())
    for name, how in dict(of_images.OF_MAPS, mean='mean').items():
      rows[name].append(-aggregate.aggregate(u, how, prediction=said, valid=seen))
    pairs = itertools.combinations(arrays['labels'][k], 2)
    each = [[dice(a, b, seen, [c]) for c in classes] for a, b in pairs]
    rows['pairwise_dice'].append(np.mean(each))
    expected = [
      2 * mean[..., c][m].sum() / (mean[..., c][seen].sum() + m.sum())
      for c in classes
      if (m := (said == c) & seen).any()
    ]
    none = ~(np.isin(arrays['labels'][k], classes) & seen).any((1, 2))  # of samples
    rows['soft_dice'].append(np.mean(expected or none))
  return {k: np.array(v) for k, v in rows.items()}


def mean_risk_of_the_surest(confidence, risk):
  risk = risk[np.argsort(-confidence)]
  return [risk[:k].mean() for k in range(1, len(risk) + 1)]


def test_each_confidence_and_score_is_that_of_a_loop_over_images():
  arrays = varied(9)
  found, made = counted(arrays, cuts=(2, 5))
  want, values = by_hand(arrays), {m.name: found.value(m) for m in made}
  total = found.total(made[0].source)
  np.testing.assert_allclose(total.risk, want['risk'], atol=1e-6)
  for name in CONFIDENCES:
    np.testing.assert_allclose(total.confidences[name], want[name], atol=2e-5, err_msg=name)
    areas = mean_risk_of_the_surest(want[name], want['risk'])
    assert values[f'image_aurc[{name}]'] == pytest.approx(np.mean(areas), abs=1e-6)
  risk, best = want['risk'], mean_risk_of_the_surest(-want['risk'], want['risk'])
  ours = mean_risk_of_the_surest(want['mean'], risk)
  assert values['image_eaurc'] == pytest.approx(np.mean(ours) - np.mean(best), abs=1e-6)
  let_through = np.array(ours) * np.arange(1, 10) / 9
  assert values['image_augrc'] == pytest.approx(let_through.mean(), abs=1e-6)
  sure = want['soft_dice']
  trapezoid = selective.areas(sure, risk, form='trapezoid').aurc
  assert values['image_aurc[soft_dice,trapezoid]'] == pytest.approx(trapezoid, abs=1e-6)
  assert 0 < np.sum(risk > 0.43) < 9
  auroc = roc_auc_score(risk > 0.43, -sure)
  assert values['failure_auroc[soft_dice,risk=0.43]'] == pytest.approx(auroc)
  rho = stats.spearmanr(want['pairwise_dice'], 1 - risk).statistic
  assert values['image_spearman[pairwise_dice]'] == pytest.approx(rho)


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([(), (4,)]), st.integers(0, 99))
def test_order_and_batches_of_images_change_nothing(cuts, seed):
  arrays = varied(6)
  arrays = {k: np.concatenate([v[:5], v[:3]]) for k, v in arrays.items()}  # three are there twice
  names = ('image_aurc', 'image_eaurc[patch10]', 'image_aurc[soft_dice]', *OTHERS[-2:])
  one, made = counted(arrays, names)
  order = np.random.default_rng(seed).permutation(8)
  other, _ = counted(arrays, names, cuts, order=order)
  first, second = (c.estimates(made, resamples=30) for c in (one, other))
  for name in names:
    a, b = first[name], second[name]
    assert (b.value, b.low, b.high) == pytest.approx(
      (a.value, a.low, a.high), abs=1e-9, nan_ok=True
    )


def test_an_interval_is_that_of_images_drawn_again():
  arrays = varied(7)
  found, made = counted(arrays, ('image_aurc', 'failure_auroc[risk=0.43]', 'image_spearman'))
  draws = found.draws(made, resamples=60, seed=3)
  times = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), 50)  # the first block
  total = found.total(made[0].source)
  sure, risk = total.confidences['mean'], total.risk
  for r, n in enumerate(times):
    again = np.repeat(np.arange(7), n)
    want = selective.areas(sure[again], risk[again]).aurc
    assert draws['image_aurc'][r] == pytest.approx(want)
    failed = risk[again] > 0.43
    mixed = 0 < failed.sum() < 7
    want = roc_auc_score(failed, -sure[again]) if mixed else np.nan
    assert draws['failure_auroc[risk=0.43]'][r] == pytest.approx(want, nan_ok=True)
    several = len({*again.tolist()}) > 1
    want = stats.spearmanr(sure[again], -risk[again]).statistic if several else np.nan
    assert draws['image_spearman'][r] == pytest.approx(want, nan_ok=True)


def test_cells_of_rows_survive_their_files_and_merge(tmp_path):
  arrays = varied(8)
  whole, made = counted(arrays)
  parts = [{k: v[rows] for k, v in arrays.items()} for rows in (slice(0, 3), slice(3, 8))]
  cells = [counted(part)[0] for part in parts]
  both = cell.merged(cells, [m.source for m in made])
  both.save(tmp_path / 'a.npz', {})
  again, _ = cell.load(tmp_path / 'a.npz')
  for m in made:
    assert again.value(m) == both.value(m) == pytest.approx(whole.value(m))
  gap = cell.difference(again, whole, made[0], resamples=20)
  assert gap.value == pytest.approx(0)


def test_one_image_all_right_and_all_wrong():
  names = ('image_aurc', 'image_eaurc', 'image_augrc', 'failure_auroc', 'image_spearman')
  one, made = counted(varied(1), names)
  risk = one.total(made[0].source).risk[0]
  want = [risk, 0, risk, np.nan, np.nan]
  assert [one.value(m) for m in made] == pytest.approx(want, nan_ok=True)
  assert all(np.isnan(e.low) for e in one.estimates(made, resamples=10).values())
  right = varied(4)
  right['truth'] = np.repeat(right['mean'].argmax(-1)[:, None], 2, 1).astype(np.int32)
  found, _ = counted(right, names)
  assert [found.value(m) for m in made] == pytest.approx([0, 0, 0, np.nan, np.nan], nan_ok=True)
  wrong = right | dict(truth=(right['truth'] + 1) % 3)
  wrong['truth'][:] = np.where(right['truth'] == 0, VOID, 0)  # never said where it is true
  found, _ = counted(wrong, names)
  want = [1, 0, (1 + 1 / 4) / 2, np.nan, np.nan]
  assert [found.value(m) for m in made] == pytest.approx(want, nan_ok=True)


def test_equally_sure_images_have_the_mean_risk_and_no_other_score():
  arrays = varied(5)
  arrays['mean'][:] = np.float32([0.5, 0.3, 0.2])
  found, made = counted(arrays, ('image_aurc', 'failure_auroc[risk=0.8]', 'image_spearman'))
  risk = found.total(made[0].source).risk
  assert found.value(made[0]) == pytest.approx(risk.mean())
  assert 0 < np.sum(risk > 0.8) < 5
  assert found.value(made[1]) == 0.5
  assert np.isnan(found.value(made[2]))


def test_images_without_a_value_are_left_out_and_counted():
  arrays = varied(6)
  arrays['truth'][2] = VOID  # nobody knows a pixel
  found, made = counted(arrays, ('image_aurc', 'image_aurc[mass_ratio]'))
  rest = {k: np.delete(v, 2, 0) for k, v in arrays.items()}
  want, _ = counted(rest, ('image_aurc', 'image_aurc[mass_ratio]'))
  for m in made:
    e = found.estimates([m], resamples=5)[m.name]
    assert (e.images, e.skipped) == (5, 1)
    assert e.value == pytest.approx(want.value(m))


def test_two_empty_masks_agree_or_are_left_out():
  arrays = varied(3, classes=2)
  arrays['mean'][0], arrays['truth'][0] = (0.9, 0.1), 0
  cells = []
  for absent in ('one', 'skip'):
    made = metrics(('image_aurc', 'image_aurc[soft_dice]'), 2, absent=absent)
    cells.append(engine.count(stream(arrays, ()), made)['m'].total(made[0].source))
  assert cells[0].risk[0] == 0
  assert np.isnan(cells[1].risk[0])
  np.testing.assert_allclose(cells[0].risk, by_hand(arrays, (1,))['risk'], atol=1e-6)
  empty = ~((arrays['labels'][0] == 1) & (arrays['truth'][0] != VOID).any(0)).any((1, 2))
  assert cells[0].confidences['soft_dice'][0] == pytest.approx(empty.mean())


def test_classes_that_labels_cannot_have_count_nowhere():
  setting = Setting(class_names=('a', 'b', 'c'), ignore=VOID, absent_classes=(1,))
  (m,) = catalogue.metrics(('image_aurc',), setting)
  arrays = varied(4)
  total = engine.count(stream(arrays, ()), (m,))['m'].total(m.source)
  np.testing.assert_allclose(total.risk, by_hand(arrays, (0, 2))['risk'], atol=1e-6)


def test_what_cannot_be_scored_says_why():
  made = metrics(('image_aurc', 'image_aurc[pairwise_dice]'))
  logits, maps = Traits(logits=True), Traits(confidence=False, single=True)
  assert [m.left_out(logits) for m in made] == ['', 'one segmentation says nothing of a spread']
  assert made[0].left_out(maps) == 'one label map says nothing of confidence'
  for name in ('image_aurc[maen]', 'failure_auroc[risk=2]', 'image_augrc[risk=0.5]'):
    with pytest.raises(UserError):
      metrics((name,))
  assert of_images.split('failure_auroc[patch10,risk=0.3]') == (
    'failure_auroc[risk=0.3]',
    'patch10',
  )
  assert of_images.split('image_aurc') == ('image_aurc', 'mean')
