"""Evaluation: GED with both data sets' conventions, HM-IoU, calibration of the flips.

-1 in these files stands for nan.
"""

import numpy as np

from car_jax.metrics import calibration, flips, overlap, stochastic
from tests.metrics import published
from tests.replay import Replay, replays
from tests.whole import whole

TOLERANCE = 1e-5
UNSEEN = -1.0


def _marked(x) -> np.ndarray:
  x = np.asarray(x)
  return np.where(np.isnan(x), UNSEEN, x)


def _distances(samples, readers, classes, ignore=None) -> np.ndarray:
  """1 - IoU per class for all pairs, readers first: [B, L, L, K]."""
  counts = whole(overlap.overlap)((readers, samples), classes, ignore)
  return 1 - np.asarray(whole(overlap.mirrored)(whole(overlap.iou)(counts)))


@replays('car', 'eval_lidc')
def lidc(r: Replay):
  readers = r['gt'].astype(np.int32)
  M = readers.shape[1]
  tags = [key.removeprefix('preds_') for key in r.arrays if key.startswith('preds_')]
  for tag in tags:
    samples = r[f'preds_{tag}'].swapaxes(0, 1).astype(np.int32)
    compared = whole(stochastic.compare)(samples, readers, classes=(1,))
    found = whole(stochastic.ged)(compared)
    r.check(f'ged_{tag}', _marked(found.ged), TOLERANCE)
    r.check(f'd_ys_{tag}', _marked(found.d_ys), TOLERANCE)
    r.check(f'd_ss_{tag}', _marked(found.d_ss), TOLERANCE)
    r.check(f'hm_iou_{tag}', _marked(whole(stochastic.hm_iou)(compared)), TOLERANCE)
    far = _marked(1 - np.asarray(compared.iou))
    r.check(f'mat_ys_{tag}', far[:, :M, M:], TOLERANCE)
    r.check(f'mat_ss_{tag}', far[:, M:, M:], TOLERANCE)
    r.check(f'mat_yy_{tag}', far[:, :M, :M], TOLERANCE)
  probs = r['calnet_probs'].transpose(0, 2, 3, 1)
  score = whole(calibration.kl_to_readers)(probs, readers, np.ones(readers.shape[:2], np.float32))
  r.check('calnet_score', np.mean(np.asarray(score, np.float64)), TOLERANCE)


@replays('car', 'eval_cityscapes')
def cityscapes(r: Replay):
  labels, samples = r['labels'].astype(np.int32), r['preds'].swapaxes(0, 1).astype(np.int32)
  table = _table(r)
  weights = flips.mode_weights(table)
  ours = flips.mode_flips(table)
  unused = r.arrays['mode_flips'].shape[1] - len(table)  # columns of classes that never flip
  r.check('mode_flips', np.pad(ours, ((0, 0), (0, unused))), 0)
  r.check('mode_probs', weights, TOLERANCE)
  readers = np.asarray(whole(flips.modes)(labels, table))
  r.check('modes_image0', readers[0], 0)
  M = readers.shape[1]

  conventions = dict(classes=flips.switchable(table), absent='skip', ignore=flips.UNLABELLED)
  conventions |= dict(ignored='class')
  weight = np.broadcast_to(np.float32(weights), readers.shape[:2])
  compared = whole(stochastic.compare)(samples, readers, reader_weight=weight, **conventions)
  found = whole(stochastic.ged)(compared)
  for key, ours in zip(('ged', 'd_ys', 'd_ss'), found, strict=False):
    r.check(key, _marked(ours), TOLERANCE)
  far = _distances(samples, readers, conventions['classes'], conventions['ignore'])
  stride = -(-M // r.arrays['mat_ys'].shape[1])
  r.check('mat_ys', _marked(far[:, :M, M:][:, ::stride]), TOLERANCE)
  r.check('mat_ss', _marked(far[:, M:, M:]), TOLERANCE)
  r.check('mat_yy_modes', _marked(1 - np.asarray(compared.iou)[:, :M, :M]), TOLERANCE)
  every = tuple(range(len(r.arrays['iou_sample0_image0'])))
  pair = samples[:1, :1], labels[:1, None]
  one = overlap.iou(whole(overlap.overlap)(pair, every, conventions['ignore']))[:, 0, 1]
  r.check('iou_sample0_image0', _marked(one[0]), TOLERANCE)
  _flip_calibration(r, labels, samples, table)


def _table(r: Replay) -> tuple[flips.Flip, ...]:
  """The published flips; the single-class experiment flips road alone, with 8/17."""
  if len(r.arrays['mode_flips']) == 2:
    return (flips.Flip(0, 23, 8 / 17),)
  return flips.FLIPS


def _flip_calibration(r: Replay, labels, samples, table):
  counts = whole(published.mode_counts)(labels, samples, table)
  r.check('pixel_mode_counts', counts, 0)
  shares = flips.frequencies(np.sum(np.asarray(counts, np.int64), 0))
  r.check('pred_class_probs', _marked(shares), TOLERANCE)
  black_box = r['bb_preds'].astype(np.int32)
  r.check('correct_mask', whole(flips.correct)(labels, black_box, table), 0)
  probs = r['calnet_probs'].transpose(0, 2, 3, 1)
  sums = whole(flips.class_sums)(probs, labels, black_box, table)
  faithful = flips.class_probabilities([sums], pooled=False)
  r.check('calnet_class_probs', faithful, TOLERANCE)
  present = np.isin(np.arange(probs.shape[-1]), labels)
  for flip in table:
    present[flip.twin] = present[flip.base]
  r.check('gt_class_probs', published.true_probabilities(present, table), TOLERANCE)
