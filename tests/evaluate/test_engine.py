"""The one loop: every score is the same however images come, and looks at no void pixel."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from car_jax.errors import UserError
from car_jax.evaluate import engine
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import Prediction
from car_jax.metrics import catalogue
from car_jax.metrics.base import Traits
from car_jax.metrics.catalogue import Setting
from car_jax.metrics.flips import Flip

SIDE, SAMPLES, READERS, VOID = 6, 3, 2, 255
OF_READERS = ('ged3', 'ged3[u]', 'ged2[absent=skip]', 'hm_iou3', 'dice_max3', 'diversity', 'd_yy')
OF_READERS += ('ged3[absent=zero]', 'dice_max3[best=readers]', 'dice_match3', 'pairwise_dice3')
OF_READERS += ('dice_max2[best=both,absent=skip,fg]', 'crps_area3', 'crps_area3[u,classes=0+1]')
OF_READERS += (
  'dice_soft',
  'dice_soft[own,absent=skip]',
  'dice_soft[fg]',
  'ci3',
  'ci2[self,harmonic]',
)
OF_READERS += ('ece', 'ece[own]', 'ece[listed]', 'nll', 'brier', 'kl', 'miou', 'miou[fg]')
OF_PIXELS = ('auroc', 'auroc[entropy]', 'auroc[disagreement]', 'prr', 'aurc', 'adaptive_ece', 'ks')
OF_PIXELS += ('classwise_ece', 'pixel_accuracy', 'unknown_auroc', 'object_auroc')
OF_MAPS = ('component_f1[seg=2,ins=1]', 'component_siou[entropy,seg=0,ins=2,at=0.6]')
OF_MAPS += (
  'component_ppv[seg=0,ins=1]',
  'boundary_iou',
  'boundary_iou[width=1,images]',
  'boundary_f',
)
OF_MAPS += ('ece_near', 'ece_near[0-1]')
NAMES = (*OF_READERS, *OF_PIXELS, *OF_MAPS)


def images(count, classes=3, readers=READERS, seed=0):
  """Arrays of images: samples' labels and mean, and labels of readers, a fifth of them void."""
  rng = np.random.default_rng(seed)
  probs = softmax(2 * rng.normal(size=(count, SAMPLES, SIDE, SIDE, classes)), -1)
  labels = rng.integers(0, classes, (count, readers, SIDE, SIDE))
  labels[rng.random(labels.shape) < 0.2] = VOID
  return dict(
    labels=probs.argmax(-1).astype(np.uint8),
    mean=probs.mean(1).astype(np.float32),
    own=softmax(rng.normal(size=(count, SIDE, SIDE, classes)), -1).astype(np.float32),
    disagreement=rng.random((count, SIDE, SIDE)).astype(np.float32),
    truth=labels.astype(np.int32),
    unknown=rng.random((count, SIDE, SIDE)) < 0.1,
  )


def stream(arrays, cuts, *, order=None, size=0):
  """Batches of the images between the cuts, in any order, filled up to `size` with padding."""
  count = len(arrays['truth'])
  order = np.arange(count) if order is None else order
  for rows in np.split(order, cuts):
    if not len(rows):
      continue
    keep = np.arange(max(size, len(rows))) < len(rows)
    rows = np.concatenate([rows, np.repeat(rows[:1], len(keep) - len(rows))])
    part = {k: v[rows] for k, v in arrays.items()}
    truth, unknown = part.pop('truth'), part.pop('unknown')
    weight = np.full(part['labels'].shape[:2], 1 / SAMPLES, np.float32)
    share = np.full(truth.shape[:2], 1 / truth.shape[1], np.float32)
    batch = dict(labels=truth, label_weight=share, valid=keep, unknown=unknown)
    rows_of = {'m': Row(Prediction(weight=weight, **part), Traits(disagreement=True))}
    ids = np.array([f'{r:02d}' for r in rows])
    yield Predicted(jax.device_put(batch), rows_of, ids, np.full(len(ids), ''), keep)


@functools.cache
def metrics(classes=3, names=NAMES):
  setting = Setting(class_names=tuple('abcdef'[:classes]), ignore=VOID, samples=SAMPLES)
  return catalogue.metrics(names, setting)


def values(arrays, cuts=(), classes=3, names=NAMES, **options):
  made = metrics(classes, names)
  cell = engine.count(stream(arrays, cuts, **options), made)['m']
  return np.array([cell.value(m) for m in made]), cell


def test_every_score_has_a_value():
  found, _ = values(images(4))
  assert [n for n, v in zip(NAMES, found, strict=True) if not np.isfinite(v)] == []


@settings(max_examples=5, deadline=None)
@given(st.sampled_from([(1,), (2,), (1, 2, 3)]), st.integers(0, 99))
def test_any_split_order_and_padding_give_the_same_scores(cuts, seed):
  arrays = images(4)
  order = np.random.default_rng(seed).permutation(4)
  want, cell = values(arrays)
  found, other = values(arrays, cuts, order=order, size=4)
  np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
  assert sorted(other.ids) == sorted(cell.ids)
  one, two = (c.estimates(metrics(), resamples=20) for c in (cell, other))
  for name in ('ece', 'auroc', 'ged3'):
    assert (two[name].low, two[name].high) == pytest.approx(
      (one[name].low, one[name].high), rel=1e-4, abs=1e-5
    )


def test_what_is_said_of_void_pixels_changes_no_score():
  arrays = images(4)
  void = (arrays['truth'] == VOID).all(1) & ~arrays['unknown']
  assert void.any()
  other = {k: v.copy() for k, v in arrays.items()}
  rng = np.random.default_rng(5)
  for key in ('mean', 'own'):
    other[key][void] = softmax(3 * rng.normal(size=other[key][void].shape), -1)
  labels = np.moveaxis(other['labels'], 1, -1)
  labels[void] = rng.integers(0, 3, labels[void].shape)
  kept = [n for n in NAMES if not n.startswith('object')]  # GenVal's look at whole images
  at = [NAMES.index(n) for n in kept]
  np.testing.assert_allclose(values(other)[0][at], values(arrays)[0][at], atol=1e-6)


@pytest.mark.parametrize('case', ['one image', 'one reader', 'two classes', 'all void', 'nothing'])
def test_corner_cases_are_numbers_or_undefined(case):
  arrays = images(
    1 if case == 'one image' else 4,
    classes=2 if case == 'two classes' else 3,
    readers=1 if case == 'one reader' else READERS,
  )
  if case == 'all void':
    arrays['truth'][:], arrays['unknown'][:] = VOID, False
  if case == 'nothing':
    with pytest.raises(UserError, match='no image'):
      engine.count(iter(()), metrics())
    return
  found, cell = values(arrays, classes=2 if case == 'two classes' else 3)
  if case == 'all void':
    assert np.isnan(found).all()
  else:
    assert np.isfinite(found).sum() >= len(found) - 4  # of one map there is no spread
  for e in cell.estimates(metrics(2 if case == 'two classes' else 3), resamples=5).values():
    assert e.images + e.skipped == len(cell.ids)


def test_each_reader_is_a_label_of_its_own_in_scores_of_pixels():
  arrays = images(5)
  arrays['unknown'][:] = False
  cell = values(arrays, names=('auroc', 'pixel_accuracy'))[1]
  probs = np.repeat(arrays['mean'][:, None], READERS, 1)
  known = arrays['truth'] != VOID
  wrong = (probs.argmax(-1) != arrays['truth'])[known]
  auroc, accuracy = metrics(names=('auroc', 'pixel_accuracy'))
  assert cell.value(accuracy) == pytest.approx(1 - wrong.mean())
  want = roc_auc_score(wrong, 1 - probs.max(-1)[known])
  assert abs(cell.value(auroc) - want) <= auroc.bound(cell.total(auroc.source)) + 1e-6


def test_scores_without_meaning_are_left_out_with_a_reason():
  names = ('auroc[max_logit]', 'auroc', 'ged3[u]')
  made = catalogue.metrics(names, Setting(class_names=('a', 'b', 'c'), samples=SAMPLES))
  reasons = [m.left_out(Traits(draws=False)) for m in made]
  assert reasons == ['no logits of a net', '', 'weights, not draws: see [v]']
  assert made[1].left_out(Traits(confidence=False)) == 'one label map says nothing of confidence'


NAMED = {
  'dice_max16': 'dice_max16[absent=1,fg]',
  'dice_max16[best=readers,absent=0]': 'dice_max16[absent=0,fg,best=readers]',
  'dice_match16[absent=skip,all]': 'dice_match16[absent=skip,all]',
  'pairwise_dice16': 'pairwise_dice16[u,absent=1,fg,dice]',
  'crps_area': 'crps_area4[v,fg]',
  'crps_area16[u]': 'crps_area16[u,fg]',
  'ci16[self]': 'ci16[fg,self]',
  'dice_soft': 'dice_soft[mean of 4, above 0.1+0.3+0.5+0.7+0.9, absent=1, fg]',
}


def test_conventions_say_all_that_a_value_depends_on():
  made = catalogue.metrics([*NAMED], Setting(class_names=('a', 'b'), samples=4))
  assert [m.convention for m in made] == [*NAMED.values()]
  with pytest.raises(UserError, match='did you mean: readers'):
    catalogue.metric('dice_max4[best=reader]', Setting(class_names=('a', 'b')))
  with pytest.raises(UserError, match="absent='2'"):
    catalogue.metric('dice_match4[absent=2]', Setting(class_names=('a', 'b')))


def test_scores_of_a_spread_are_left_out_where_there_is_none():
  made = catalogue.metrics([*NAMED], Setting(class_names=('a', 'b')))
  left = lambda **traits: {m.name for m in made if m.left_out(Traits(**traits))}
  spread = {'pairwise_dice16', 'crps_area16[u]'}
  assert left() == set()
  assert left(draws=False) == spread
  assert left(single=True, confidence=False) == {*spread, 'dice_soft'}
  flips = Setting(class_names=('a', 'b', 'c'), flips=(Flip(0, 2, 0.5),))
  assert 'all modes' in catalogue.metric('dice_match16', flips).left_out(Traits())


def test_predictions_of_another_kind_are_one_message():
  first, second = stream(images(2), (1,))
  row = Row(second.rows['m'].prediction, Traits(logits=True))
  mixed = Predicted(second.batch, {'m': row}, second.ids, second.groups, second.keep)
  with pytest.raises(UserError, match='01 has logits, images before it samples'):
    engine.count([first, mixed], metrics())


def test_a_prediction_that_is_not_finite_names_its_image():
  arrays = images(3)
  arrays['mean'][1, 2, 2] = np.nan
  with pytest.raises(UserError, match='image 01: its logits are not finite'):
    values(arrays, names=('auroc',))
