"""RELIS and GenVal: calibration errors, ranking, rejection, IoU against the recorded values."""

import numpy as np
from scipy.special import entr, softmax

from car_jax.metrics import (
  calibration,
  confidence_groups,
  confusion_matrix,
  ranking,
  rejection,
  scores,
)
from tests.metrics import published
from tests.replay import Replay, replays

IGNORED = 255


def confidences(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Largest probability in float32, and negative entropy with the published floor."""
  p = softmax(np.asarray(logits, np.float64), -1) + 1e-16
  return softmax(np.asarray(logits, np.float32), -1).max(-1), np.sum(p * np.log(p), -1)


def table(groups: confidence_groups.Tied, bins: int) -> np.ndarray:
  """[B, 3]: pixels, mean truth, mean confidence; 0 where empty."""
  found = calibration.reliability(confidence_groups.binned(groups, bins, zero=False))
  return np.nan_to_num(np.stack([found.pixels, found.frequency, found.confidence], -1))


def ece(groups: confidence_groups.Tied, bins: int) -> float:
  return calibration.ece(confidence_groups.binned(groups, bins, zero=False), np.sum(groups.pixels))


@replays('relis', 'calib')
def calibrations(r: Replay) -> None:
  labels = r['labels']
  seen = labels != IGNORED
  logits, labels = r['logits'][seen], labels[seen]
  classes = logits.shape[-1]
  p = softmax(logits.astype(np.float32), -1)
  hits = np.argmax(p, -1) == labels
  entropy = entr(softmax(logits.astype(np.float64), -1)).sum(-1)
  whole = softmax(r['logits'].astype(np.float64), -1)
  full = len(r.arrays['max_prob']) == len(r.arrays['labels'])
  q = whole if full else softmax(logits.astype(np.float64), -1)
  r.check('max_prob', q.max(-1), 1e-5)
  r.check('entropy', entr(q).sum(-1), 1e-5)
  top = confidence_groups.tied(p.max(-1), hits)
  calm = confidence_groups.tied(np.float32(1 - entropy / np.log(classes)), hits)
  bins = [int(b) for b in r['bins']]
  r.check('ece', [ece(top, b) for b in bins], 1e-5)
  r.check('ada_ece', [confidence_groups.adaptive_ece_relis(top, b) for b in bins], 1e-5)
  r.check('ext_ece_entropy', [ece(calm, b) for b in bins], 1e-5)
  for b in bins:
    r.check(f'bins_prob_{b}', table(top, b), 1e-5)
    r.check(f'bins_entropy_{b}', table(calm, b), 1e-5)
  r.check('ks', confidence_groups.ks_error(top), 1e-5)
  r.check('ece_from_logits_15', ece(top, 15), 1e-5)
  r.check('accuracy', hits.mean(), 1e-6)
  one_hot = np.eye(classes)[labels]
  r.check('nll', -np.mean(np.log(np.sum(p * one_hot, -1))), 1e-5)
  r.check('ext_brier', np.mean(np.sum((p - one_hot) ** 2, -1)), 1e-5)
  each = [confidence_groups.tied(p[:, c], labels == c) for c in range(classes)]
  r.check('classwise_ece_15', [ece(g, 15) for g in each], 1e-5)
  r.check('classwise_ada_ece_15', [confidence_groups.adaptive_ece_relis(g, 15) for g in each], 1e-5)
  r.check('classwise_ks', [confidence_groups.ks_error(g) for g in each], 1e-5)


@replays('relis', 'calib_edge')
def edges(r: Replay) -> None:
  bins = [int(b) for b in r['bins']]
  for case in ('edges', 'ones', 'zeros', 'saturated', 'binary'):
    probs, labels = r[f'{case}_probs'], r[f'{case}_labels']
    seen = labels != IGNORED
    probs, labels = probs[seen], labels[seen]
    groups = confidence_groups.tied(probs.max(-1), probs.argmax(-1) == labels)
    r.check(f'{case}_ece', [ece(groups, b) for b in bins], 1e-6)
    r.check(
      f'{case}_ada_ece', [confidence_groups.adaptive_ece_relis(groups, b) for b in bins], 1e-6
    )
    r.check(f'{case}_table_16', table(groups, 16), 1e-6)


@replays('relis', 'roc')
def rankings(r: Replay) -> None:
  for case in ('plain', 'rare_ood', 'ties', 'two_level', 'constant', 'separable', 'inverted'):
    conf, known = r[f'{case}_conf'], r[f'{case}_in_domain'] == 1
    strange = ranking.by_value(-conf, ~known)
    r.check(f'{case}_auroc', ranking.auroc(*strange), 1e-6)
    r.check(f'{case}_fpr95', ranking.fpr_at_tpr(*strange), 1e-6)
    r.check(f'{case}_ext_fpr95_exact', ranking.fpr_at_tpr(*strange), 1e-6)
    r.check(f'{case}_aupr_in', ranking.aupr(*strange), 1e-6)
    r.check(f'{case}_aupr_out', ranking.aupr(*ranking.by_value(conf, known)), 1e-6)


@replays('relis', 'prr')
def rejections(r: Replay) -> None:
  logits, labels = r['logits'], r['labels']
  wrong, seen = np.argmax(logits, -1) != labels, labels != IGNORED
  for name, conf in zip(('prob', 'entropy'), confidences(logits), strict=True):
    counts = lambda keep, conf=conf: ranking.by_value(conf[keep], wrong[keep])
    every, valid = counts(np.ones_like(seen)), counts(seen)
    r.check(f'prr_{name}_ref_all', 100 * rejection.prr_relis(*every), 5e-3)
    r.check(f'prr_{name}_ref_valid', 100 * rejection.prr_relis(*valid), 5e-3)
    r.check(f'ext_prr_{name}_valid', 100 * rejection.prr(*valid), 5e-3)
    published = lambda c: rejection.areas(*c, oracle_share=0.01)
    r.check(f'prr_{name}_ref_all_areas', published(every), 1e-5)
    r.check(f'areas_{name}_valid', published(valid), 1e-5)
  first = np.flatnonzero(seen)[:60]
  conf = confidences(logits)[0]
  few = ranking.by_value(conf[first], wrong[first])
  r.check('small_prr_prob', 100 * rejection.prr_relis(*few), 5e-3)
  valid = ranking.by_value(conf[seen], wrong[seen])
  r.check('prr_prob_from_probs', 100 * rejection.prr_relis(*valid), 5e-3)


@replays('relis', 'segmentation')
def segmentations(r: Replay) -> None:
  for name in ('cityscapes', 'idd'):
    truth, said = r[f'{name}_train_ids'], r[f'{name}_pred']
    classes = r.arrays[f'{name}_hist'].shape[0]
    matrices = np.stack([matrix(t, s, classes) for t, s in zip(truth, said, strict=True)])
    total = matrices.sum(0)
    absent = [c for c in (9, 16) if name == 'idd']  # no id of IDD means terrain or train
    kept = tuple(c for c in range(classes) if c not in absent)
    found = confusion_matrix.iou(total)
    found[absent] = np.nan
    r.check(f'{name}_hist', total, 0)
    r.check(f'{name}_iou', np.nan_to_num(found, nan=-1), 1e-5)
    r.check(f'{name}_miou', confusion_matrix.mean_iou(total, kept), 1e-5)
    r.check(f'{name}_pixel_acc_percent', 100 * confusion_matrix.pixel_accuracy(total), 1e-4)
    r.check(f'{name}_mean_acc_fraction', confusion_matrix.mean_accuracy(total), 1e-5)
    each = lambda f, matrices=matrices: np.nan_to_num([f(m) for m in matrices], nan=-1)
    r.check(f'{name}_image_iou', each(confusion_matrix.iou), 1e-5)
    r.check(f'{name}_image_present_iou', each(published.present_iou), 1e-5)
    accuracies = [
      (100 * confusion_matrix.pixel_accuracy(m), confusion_matrix.mean_accuracy(m))
      for m in matrices
    ]
    r.check(f'{name}_image_acc', accuracies, 1e-4)
  probs = softmax(np.moveaxis(r['entropy_logits'], 1, -1), -1)
  found = np.asarray(scores.entropy(probs))
  r.check('entropy_map', found, 1e-5)
  r.check('entropy_mean', found.mean(), 1e-5)
  r.check('entropy_image_u8', 255 * found[0] / np.log(probs.shape[-1]) // 1, 1)


def matrix(truth: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
  seen = truth < classes
  index = truth[seen].astype(int) * classes + said[seen]
  return np.bincount(index, minlength=classes**2).reshape(classes, classes)
