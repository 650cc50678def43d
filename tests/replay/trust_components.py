"""Component scores of anomalies, and exact pixel scores, against the recorded values."""

import numpy as np

from car_jax.metrics import components, ranking
from tests.replay import Replay, replays


@replays('trust', 'components')
def scores(r: Replay) -> None:
  labels, score = r['label'], r['score'].astype(np.float64)
  for tag in [key.removesuffix('/threshold') for key in r.arrays if key.endswith('/threshold')]:
    one_tag(r, tag, labels, score)
  seen = labels != 255
  counts = ranking.by_value(score[seen], labels[seen] == 1)
  r.check('exact/average_precision', ranking.average_precision(*counts), 1e-12)
  r.check('exact/auroc', ranking.auroc(*counts), 1e-12)
  r.check('exact/fpr_at_95', ranking.fpr_at_tpr(*counts), 1e-12)
  best, group = ranking.best_f1(*counts)
  r.check('exact/best_f1', best, 1e-12)
  r.check('exact/best_f1_threshold_at_least', np.unique(score[seen])[group], 1e-12)
  r.leave_out('bins of different images are merged, which is no pooled curve', 'benchmark/*')


def one_tag(r: Replay, tag: str, labels: np.ndarray, score: np.ndarray) -> None:
  threshold, (predicted, true) = r[f'{tag}/threshold'], r[f'{tag}/least_sizes']
  sizes = dict(least_predicted=None if predicted < 0 else int(predicted), least_true=int(true))
  images = [
    components.components(s > threshold, y, **sizes) for s, y in zip(score, labels, strict=True)
  ]
  for i, c in enumerate(images):
    ours = dict(sIoU_gt=c.true_siou, size_gt=c.true_size, sIoU_pred=c.predicted_siou)
    ours |= dict(size_pred=c.predicted_size, prec_pred=c.ppv)
    for name, value in ours.items():
      r.check(f'{tag}/image{i}/{name}', value, 1e-12)
  counts = np.stack([c.counts() for c in images])  # [N, T, 3]
  for k, name in enumerate(('tp', 'fn', 'fp')):
    r.check(f'{tag}/{name}', counts[..., k], 0)
    r.check(f'{tag}/{name}_mean', counts[..., k].sum(0).mean(), 1e-12)
  found = components.scores(images)
  r.check(f'{tag}/f1_mean', found.mean_f1, 1e-12)
  for name, k in (('25', 0), ('50', 5), ('75', 10)):
    r.check(f'{tag}/f1_{name}', found.f1[k], 1e-12)
  r.check(f'{tag}/sIoU_gt', found.siou, 1e-12)
  r.check(f'{tag}/prec_pred', found.ppv, 1e-12)
  mean = np.concatenate([c.predicted_siou for c in images])
  r.check(f'{tag}/sIoU_pred', mean.mean() if mean.size else np.nan, 1e-12)
