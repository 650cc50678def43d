"""Scores of whole maps from the one loop, against sets of pixels, erosions, loops over pixels."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy import ndimage

from car_jax.errors import UserError
from car_jax.evaluate import cell as cells
from car_jax.evaluate import engine
from car_jax.metrics import catalogue
from car_jax.metrics.base import Traits
from car_jax.metrics.catalogue import Setting
from tests.evaluate.test_engine import VOID, images, stream
from tests.metrics import oracle
from tests.metrics.regions import by_sets

SETTING = Setting(class_names=('a', 'b', 'c'), ignore=VOID, one_label=True)
LIMITS = np.linspace(0.25, 0.75, 11)


@functools.cache
def arrays(readers=1, count=4, side=14):
  """Of larger images than those of the loop's own tests, with regions that hang together."""
  made, rng = images(count, readers=readers), np.random.default_rng(1)
  wide = lambda x, axis: np.repeat(np.repeat(x, 3, axis), 3, axis + 1)
  cut = lambda x, axis: x.take(range(side), axis).take(range(side), axis + 1)
  axes = dict(labels=2, mean=1, own=1, disagreement=1, truth=2, unknown=1)
  made = {k: cut(wide(v, axes[k]), axes[k]) for k, v in made.items()}
  noise = rng.dirichlet(np.ones(3), made['mean'].shape[:3])
  made['mean'] = np.float32(0.7 * made['mean'] + 0.3 * noise)
  return made


def values(made, *names, setting=SETTING):
  metrics = catalogue.metrics(names, setting)
  cell = engine.count(stream(made, ()), metrics)['m']
  return [cell.value(m) for m in metrics]


def uncertainty(made, score):
  p = made['mean'].astype(np.float64)
  top = np.sort(p, -1)
  if score == 'entropy':
    return -np.sum(p * np.log(p), -1) / np.log(3)
  if score == 'disagreement':
    return made['disagreement'] / np.log(3)
  if score == 'max_logit':
    return -np.log(top[..., -1])
  return 1 - top[..., -1] + (top[..., -2] if score == 'margin' else 0)


def judged(made):
  """0, 1 of unknown objects, 255 where nobody knows [B, H, W]."""
  known = (made['truth'] != VOID).any(1)
  return np.where(made['unknown'], 1, np.where(known, 0, VOID))


def by_hand(predicted, labels, least_predicted, least_true):
  """Mean F1, sIoU and PPV of all images, from sets of pixels."""
  each = [
    by_sets(p, y, least_predicted, least_true) for p, y in zip(predicted, labels, strict=True)
  ]
  siou, _, ppv = (np.concatenate(x) for x in zip(*each, strict=True))
  f1 = []
  for limit in LIMITS:
    tp, fn, fp = np.sum(siou >= limit), np.sum(siou < limit), np.sum(ppv < limit)
    f1.append(2 * tp / (2 * tp + fn + fp))
  return [np.mean(f1), siou.mean(), ppv.mean()]


@pytest.mark.parametrize(
  ('score', 'at'),
  [('max_prob', 0.35), ('entropy', 0.7), ('margin', 0.6), ('disagreement', 0.5)],
)
@pytest.mark.parametrize('sizes', [(0, 0), (4, 8)])
def test_components_above_a_given_threshold(score, at, sizes):
  made = arrays()
  how = f'[{score},seg={sizes[0]},ins={sizes[1]},at={at}]'
  found = values(made, *(f'component_{k}{how}' for k in ('f1', 'siou', 'ppv', 'threshold')))
  want = by_hand(uncertainty(made, score) > at, judged(made), *sizes)
  np.testing.assert_allclose(found[:3], want, atol=1e-12)
  assert found[3] == at


@pytest.mark.parametrize('score', ['max_prob', 'entropy', 'max_logit'])
def test_the_best_threshold_is_a_levels_of_the_best_f1_of_pixels(score):
  made, how = arrays(), f'[{score},seg=2,ins=3]'
  made = dict(made, unknown=made['unknown'] | (uncertainty(made, score) > 0.85))
  names = [f'component_{k}{how}' for k in ('f1', 'siou', 'ppv', 'threshold')]
  metrics = catalogue.metrics(names, SETTING)
  traits = Traits(logits=True)
  assert not any(m.left_out(traits) for m in metrics)
  (batch,) = stream(made, ())
  row = engine.Row(batch.rows['m'].prediction, traits)
  cell = engine.count([dataclasses.replace(batch, rows={'m': row})], metrics)['m']
  *found, threshold = [cell.value(m) for m in metrics]
  u, labels = uncertainty(made, score), judged(made)
  seen = labels != VOID
  f1 = lambda t: (
    2 * np.sum((u > t) & (labels == 1)) / (np.sum((u > t) & seen) + np.sum(labels == 1))
  )
  grid = metrics[0].source.thresholds
  assert f1(threshold) == pytest.approx(max(map(f1, grid)))
  assert threshold in grid
  exact = max(map(f1, np.unique(u[seen])[:-1]))
  assert exact - 0.05 < f1(threshold) <= exact
  np.testing.assert_allclose(found, by_hand(u > threshold, labels, 2, 3), atol=1e-12)


def test_without_unknown_objects_there_is_nothing_to_find():
  made = dict(arrays(), unknown=np.zeros_like(arrays()['unknown']))
  assert np.isnan(values(made, 'component_f1', 'component_f1[at=0.1]', 'component_siou')).all()
  nothing = values(arrays(), 'component_ppv[at=1,seg=0]', 'component_f1[at=1,seg=0]')
  assert np.isnan(nothing[0])
  assert nothing[1] == 0


def reader_pairs(made):
  said = made['mean'].argmax(-1)
  for i, readers in enumerate(made['truth']):
    for label in readers:
      known = (label != VOID) & ~made['unknown'][i]
      yield said[i], np.where(known, label, VOID), made['mean'][i]


@pytest.mark.parametrize('readers', [1, 2])
def test_boundary_iou_by_erosions(readers):
  made, counts, each = arrays(readers), np.zeros((3, 2)), []
  for said, label, _ in reader_pairs(made):
    cut, rows = np.where(label == VOID, VOID, said), []
    for c in range(3):
      band = lambda m: m & ~ndimage.binary_erosion(m, np.ones((3, 3)), iterations=2)
      ours, theirs = band(cut == c), band(label == c)
      rows.append((np.sum(ours & theirs), np.sum(ours | theirs)))
    counts += rows
    each.append([a / b if b else np.nan for a, b in rows])
  found = values(made, 'boundary_iou[width=2]', 'boundary_iou[width=2,images]')
  assert found[0] == pytest.approx(np.mean(counts[:, 0] / counts[:, 1]))
  assert found[1] == pytest.approx(np.mean(np.nanmean(each, 0)))
  without = values(
    made,
    'boundary_iou[width=2]',
    setting=Setting(('a', 'b', 'c'), ignore=VOID, absent_classes=(2,)),
  )
  assert without[0] == pytest.approx(np.mean((counts[:, 0] / counts[:, 1])[:2]))


def outline(mask):
  """A pixel is of it where its right, lower or lower right neighbour differs, as of DAVIS."""
  out = np.zeros_like(mask)
  for y, x in np.ndindex(mask.shape):
    near = mask[y : y + 2, x : x + 2]
    out[y, x] = near.any() != near.all()
  return np.argwhere(out)


def test_boundary_f_by_loops():
  made, each = arrays(2), []
  for said, label, _ in reader_pairs(made):
    row = []
    for c in range(3):
      ours, theirs = outline((said == c) & (label != VOID)), outline(label == c)
      far = np.hypot(*np.moveaxis(ours[:, None] - theirs[None], -1, 0))
      p, r = np.mean(far.min(1) <= 1.5), np.mean(far.min(0) <= 1.5)
      row.append(2 * p * r / (p + r))
    each.append(row)
  assert values(made, 'boundary_f[width=1.5]')[0] == pytest.approx(np.mean(each))


def test_a_class_that_neither_map_has_is_in_no_boundary_f():
  made = dict(arrays())
  made['mean'] = np.stack(
    [1 - made['mean'][..., 1], made['mean'][..., 1], 0 * made['mean'][..., 1]], -1
  )
  made['truth'] = np.where(made['truth'] == 2, 0, made['truth'])
  two = Setting(('a', 'b'), ignore=VOID)
  less = dict(made, mean=made['mean'][..., :2])
  for name in ('boundary_f', 'boundary_iou'):
    assert values(made, name) == values(less, name, setting=two)


@pytest.mark.parametrize('band', [(0, 1), (0, 2), (2, 8), (8, np.inf), (0, np.inf)])
def test_calibration_by_distance_to_a_border(band):
  made, rows = arrays(2), []
  for said, label, probs in reader_pairs(made):
    seen = [(y, x) for y, x in np.argwhere(label != VOID)]
    for y, x in seen:
      other = [np.hypot(y - a, x - b) for a, b in seen if label[a, b] != label[y, x]]
      if band[0] < min(other, default=np.inf) <= band[1]:
        rows.append((probs[y, x].max(), said[y, x] == label[y, x]))
  name = f'ece_near[{band[0]:g}-{band[1]:g}]'
  (metric,) = catalogue.metrics([name], SETTING)
  found = values(made, name)[0]
  if not rows:
    assert np.isnan(found)
    return
  conf, hits = map(np.array, zip(*rows, strict=True))
  want = oracle.ece(conf, hits, np.ones(len(rows), bool), 15)
  assert found == pytest.approx(want, abs=metric.bound(None) + 1e-9)


def test_all_distances_together_are_the_ece():
  every, plain = values(
    dict(arrays(), unknown=arrays()['unknown'] & False), 'ece_near[0-inf]', 'ece'
  )
  assert every == pytest.approx(plain, abs=1e-5)


def test_saved_and_merged_cells_are_one(tmp_path):
  made, names = arrays(), ('component_f1[seg=2]', 'boundary_f', 'ece_near')
  metrics = catalogue.metrics(names, SETTING)
  parts = [{k: v[s] for k, v in made.items()} for s in (slice(0, 1), slice(1, 4))]
  out = []
  for k, part in enumerate(parts):
    cell = engine.count(stream(part, ()), metrics)['m']
    cell.save(tmp_path / f'{k}.npz', {})
    out.append(cells.load(tmp_path / f'{k}.npz')[0])
  whole = cells.merged(out, [m.source for m in metrics])
  np.testing.assert_allclose([whole.value(m) for m in metrics], values(made, *names))


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('auroc[', r"metric 'auroc\[': options stand in one pair of brackets"),
    ('component_f1[at=0.5]]', 'options stand in one pair of brackets'),
    ('component_f2', "unknown metric 'component_f2'\n.*component_f1"),
    ('component_f1[entrpy]', "unknown option 'entrpy'.*\n.*entropy"),
    ('component_f1[seg=x]', 'seg is a whole number of pixels'),
    ('component_f1[at=2]', 'an uncertainty by max_prob is from 0 to 1'),
    ('component_f1[at=nan]', 'at is an uncertainty'),
    ('boundary_f[images]', "unknown option 'images'"),
    ('boundary_iou[width=0]', 'a share of the diagonal, or pixels from 1 on'),
    ('ece_near[0-3]', "unknown option '0-3'"),
  ],
)
def test_a_name_that_is_wrong_says_so(name, message):
  with pytest.raises(UserError, match=message):
    catalogue.metrics([name], SETTING)


def test_names_hold_the_conventions_and_what_has_no_score():
  names = ('component_f1', 'component_f1[energy,at=-3]', 'boundary_iou', 'boundary_f[width=2]')
  metrics = catalogue.metrics((*names, 'ece_near[8-inf]'), SETTING)
  assert [m.convention for m in metrics] == [
    'component_f1[max_prob > best pixel F1, seg=50, ins=10, void=cut]',
    'component_f1[energy > -3, seg=50, ins=10, void=cut]',
    'boundary_iou[width=0.02, pooled, void=cut, each reader a label]',
    'boundary_f[width=2, mean of images, void=cut, each reader a label]',
    'ece_near[8 to inf px, 15 bins, void=cut, each reader a label]',
  ]
  assert len({m.about.title for m in metrics}) == len(metrics)
  unsure = 'one label map says nothing of confidence'
  reasons = [m.left_out(Traits(confidence=False)) for m in metrics]
  assert reasons == [unsure, unsure, '', '', unsure]
  assert metrics[1].left_out(Traits()) == 'no logits of a net'
