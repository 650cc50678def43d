"""Losses and sizes of sets of classes against the sets themselves, pixel by pixel in numpy."""

import jax
import numpy as np
import pytest
from scipy.special import softmax

from car_jax.evaluate import engine
from car_jax.evaluate.cell import Cell
from car_jax.metrics import conformal_counts
from car_jax.metrics.base import Outputs, Traits
from car_jax.metrics.of_images import ImageRisks
from car_jax.metrics.pixel_counts import PixelCounts
from car_jax.metrics.prediction_sets import SetKind, SetLoss, SetLosses, SetSize, pixels_of

RNG = np.random.default_rng(0)
B, H, W, C = 4, 6, 7, 5
LOGITS = RNG.normal(0, 2, (B, H, W, C)).astype(np.float32)
LABELS = RNG.choice([0, 1, 2, 3, 254, 255], (B, H, W))
LABELS[2] = 255
UNKNOWN = RNG.random((B, H, W)) < 0.1
KINDS = {
  'miscoverage': SetKind('miscoverage', ignore=3),
  'balanced': SetKind('balanced', ignore=3),
  'fnr': SetKind('fnr', (1, 2), ignore=3),
}
IDS = [*'abcd']


def plain(kind, i, t, at=slice(None)):
  """Loss and size of image i at t, of all or some pixels."""
  p = softmax(LOGITS[i].reshape(-1, C).astype(np.float64), -1)[at]
  y, unknown = LABELS[i].reshape(-1)[at], UNKNOWN[i].reshape(-1)[at]
  seen = (y < C) & (y != 3) & ~unknown
  p, y = p[seen], y[seen]
  if not len(y):
    return np.nan, np.nan
  if kind == 'fnr':
    mask = p[:, [1, 2]].sum(-1) >= t
    there = np.isin(y, [1, 2])
    return np.mean(~mask[there]) if there.any() else np.nan, mask.mean()
  said = p >= t
  said[np.arange(len(y)), p.argmax(-1)] = True
  missed = ~said[np.arange(len(y)), y]
  each = [missed[y == c].mean() for c in np.unique(y)]
  return (missed.mean() if kind == 'miscoverage' else np.mean(each)), said.sum(-1).mean()


def predicted(rows=slice(None), **more):
  batch = engine.of_logits(LOGITS[rows], LABELS[rows], IDS[rows], unknown=UNKNOWN[rows], **more)
  (row,) = batch.rows.values()
  return batch, row


@pytest.mark.parametrize('name', KINDS)
def test_losses_at_every_edge_and_scores_at_one_are_those_of_the_sets(name):
  kind = KINDS[name]
  batch, _ = predicted()
  counted = engine.count([batch], (), details=lambda *_: (SetLosses(kind),))['logits']
  rows = counted.rows[SetLosses(kind).source_name]
  scores = (
    SetLoss(name='loss', guarantee='g', kind=kind),
    SetSize(name='s', guarantee='g', kind=kind),
  )
  for edge in (0, 1, 100, 513, 1000, 1024):
    t = conformal_counts.GRID[edge]
    want = np.array([plain(name, i, t) for i in range(B)])
    there = ~np.isnan(want[:, 0])
    np.testing.assert_array_equal(rows['images'], there)
    np.testing.assert_allclose(rows['sum'][there, edge], want[there, 0], atol=1e-12)
    (row,) = batch.rows.values()
    given = engine.Row(row.prediction, row.traits, given={'thresholds': {'g': t}})
    told = engine.Predicted(batch.batch, {'m': given}, batch.ids, batch.groups, batch.keep)
    cell = engine.count([told], scores)['m']
    for score, values in zip(scores, want.T, strict=True):
      np.testing.assert_allclose(cell.values(score), values, atol=1e-12)
  assert rows['sum'][:, 0].max() == 0  # everything qualifies at the least threshold


def test_batches_add_up_and_drawn_pixels_are_those_that_count():
  kind, at = KINDS['miscoverage'], RNG.permutation(H * W)[:20].astype(np.int32)
  source = SetLosses(kind)
  count = lambda *parts: engine.count(parts, (), details=lambda *_: (source,))['logits']
  whole = count(predicted()[0]).rows[source.source_name]
  parts = count(predicted(slice(0, 1))[0], predicted(slice(1, 4))[0]).rows[source.source_name]
  jax.tree.map(np.testing.assert_array_equal, parts, whole)
  few = count(predicted(pixels=np.tile(at, (B, 1)))[0]).rows[source.source_name]
  want = [plain('miscoverage', i, 0.25, at)[0] for i in (0, 1, 3)]
  np.testing.assert_allclose(few['sum'][[0, 1, 3], 256], want, atol=1e-12)


def test_several_readers_and_broken_logits_are_refused():
  batch, row = predicted()
  twice = {**batch.batch, 'labels': np.repeat(batch.batch['labels'], 2, 1)}
  twice['label_weight'] = np.ones((B, 2))
  source = SetLosses(KINDS['miscoverage'])
  with pytest.raises(ValueError, match='one label only'):
    source.state(Outputs(row.prediction), twice)
  broken = LOGITS.copy()
  broken[1, 2, 3, 0] = np.nan
  state = source.state(
    Outputs(engine.of_logits(broken, LABELS, IDS).rows['logits'].prediction), batch.batch
  )
  np.testing.assert_array_equal(source.broken(jax.device_get(state)), [False, True, False, False])


def test_maps_of_classes_have_no_such_score():
  score = SetLoss(name='loss', guarantee='g', kind=KINDS['miscoverage'])
  assert not Cell(Traits(confidence=False)).has(score)
  assert 'confidence' in score.left_out(Traits(confidence=False))


def test_equally_likely_classes_are_in_the_set_together():
  logits = np.float32([[[[1, 1, 0], [1, 1, 0], [2, -np.inf, 0]]]])
  labels = np.array([[[0, 1, 2]]])
  batch = engine.of_logits(logits, labels, ['a'], thresholds={'g': np.float32(1)})
  of = dict(guarantee='g', kind=SetKind('miscoverage'))
  loss, size = SetLoss(name='loss', **of), SetSize(name='size', **of)
  cell = engine.count([batch], (loss, size))['logits']
  np.testing.assert_allclose(cell.values(loss), [1 / 3])
  np.testing.assert_allclose(cell.values(size), [5 / 3])
  everything = engine.of_logits(logits, labels, ['a'], thresholds={'g': np.float32(0)})
  cell = engine.count([everything], (loss, size))['logits']
  assert (cell.values(loss), cell.values(size)) == (0, 3)


@pytest.mark.parametrize('foreground', [(), (3,), (0, 2), (1, 2, 3), (0, 1, 2, 3, 4)])
def test_the_probability_of_a_foreground_is_the_sum_of_its_classes(foreground):
  batch, row = predicted()
  seen = pixels_of(Outputs(row.prediction), batch.batch, ignore=3)
  p, there = (np.asarray(x).reshape(B, H, W) for x in seen.mask(foreground))
  want = softmax(LOGITS.astype(np.float64), -1)[..., list(foreground)].sum(-1)
  np.testing.assert_allclose(p, want, atol=1e-6)
  known = np.isin(LABELS, foreground) & (LABELS != 3) & ~UNKNOWN
  np.testing.assert_array_equal(there, known)


def test_scores_of_one_batch_share_its_softmax():
  batch, _ = predicted()
  image = ImageRisks(('mean',), (1, 2), ignore=3)
  sources = (PixelCounts(ignore=3), image, SetLosses(KINDS['fnr']))
  together = engine.count([batch], (), details=lambda *_: sources)['logits']
  for source in sources:
    alone = engine.count([batch], (), details=lambda *_, s=source: (s,))['logits']
    jax.tree.map(
      np.testing.assert_array_equal,
      alone.rows[source.source_name],
      together.rows[source.source_name],
    )
  calls = []
  outputs = Outputs(next(iter(batch.rows.values())).prediction)
  outputs.once = lambda key, make: calls.append(key) or Outputs.once(outputs, key, make)
  for source in sources:
    jax.eval_shape(lambda s=source: s.state(outputs, batch.batch))
  assert len(calls) == len(sources)
  assert len(set(calls)) == 1
