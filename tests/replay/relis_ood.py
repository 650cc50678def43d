"""RELIS' and GenVal's detection of the unknown against the recorded values."""

import numpy as np
from scipy.special import softmax

from car_jax.data import labels
from car_jax.metrics import confidence_groups, ranking, rejection
from tests.metrics import published
from tests.replay import Replay, replays
from tests.replay.relis_metrics import confidences, ece

UNKNOWN_IDS = {'8': (8,), '8_16_17_23': (8, 16, 17, 23)}


@replays('relis', 'ood')
def detection(r: Replay) -> None:
  ids = np.stack([x.reshape(-1)[i] for x, i in zip(r['idd_label_ids'], r['indices'], strict=True)])
  logits, truth = r['logits'], labels.idd_train_ids(ids)
  p = softmax(logits.astype(np.float64), -1) + 1e-16
  scores = {'prob': p.max(-1), 'entropy': np.sum(p * np.log(p), -1)}
  for name, conf in scores.items():
    r.check(f'pixel_conf_{name}_strided', conf[:, ::9], 1e-5)
    for key, unknown in UNKNOWN_IDS.items():
      strange = np.isin(ids, unknown)
      seen = strange | (truth < labels.SCORED)
      found = ranking.auroc(*ranking.by_value(-conf[seen], strange[seen]))
      r.check(f'local_auroc_{name}_ood_{key}', found, 1e-5)
  strange = np.isin(ids, UNKNOWN_IDS['8_16_17_23'])
  told = np.where(strange, 0, np.where(truth < labels.SCORED, 1, 255))
  r.check('local_labels_8_16_17_23', told, 0)
  whole_images(r)
  seen = truth < labels.SCORED
  top = softmax(logits[seen].astype(np.float32), -1)
  groups = confidence_groups.tied(top.max(-1), top.argmax(-1) == truth[seen])
  found = (
    ece(groups, 15),
    confidence_groups.adaptive_ece_relis(groups),
    confidence_groups.ks_error(groups),
  )
  r.check('idd_calib_ece_ada_ks', found, 1e-5)
  wrong = (logits.argmax(-1) != truth).reshape(-1)
  for name, conf in zip(('prob', 'entropy'), confidences(logits), strict=True):
    counts = ranking.by_value(conf.reshape(-1), wrong)
    r.check(f'idd_prr_{name}_ref', 100 * rejection.prr_relis(*counts), 5e-3)


def whole_images(r: Replay) -> None:
  p = softmax(r['image_logits'].astype(np.float64), -1) + 1e-16
  known = r['image_in_domain'] == 1
  for name, conf in (('prob', p.max(-1)), ('entropy', np.sum(p * np.log(p), -1))):
    found = conf.mean(-1)
    r.check(f'image_conf_{name}', found, 1e-5)
    r.check(f'image_auroc_{name}', ranking.image_level(found[known], found[~known])['auroc'], 1e-5)


@replays('relis', 'gen_ood')
def objects(r: Replay) -> None:
  found = published.object_metrics(np.moveaxis(r['logits'][0], 0, -1), r['mask'] == 1)
  for key, value in found.items():
    r.check(key, value, 1e-5)
