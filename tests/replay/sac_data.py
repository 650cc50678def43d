"""DA-SAC's label tables, scores and sampling of images against the recorded values."""

import numpy as np

from car_jax.data import importance, labels
from car_jax.metrics import cityscapes_official as official
from car_jax.metrics.confusion_matrix import known_mean
from tests.metrics import published
from tests.replay import Replay, replays
from tests.replay.relis_metrics import matrix

ALL = np.arange(256)


@replays('sac', 'labels')
def tables(r: Replay) -> None:
  of = {'cs': labels.scored_train_ids, 'gta': labels.scored_train_ids}
  of['synthia'] = labels.synthia_train_ids
  for name, convert in of.items():
    r.check(f'lut_{name}', convert(ALL), 0)
    r.check(f'raw_as_{name}', convert(r['raw']), 0)
  r.check('train_to_label_id', labels.label_ids(ALL), 0)
  r.check('train_palette', labels.colours(ALL), 0)
  black = labels.IGNORED_TRAIN_ID  # the published palette has it right after the classes
  r.check('reference_palette', labels.colours(np.r_[: labels.SCORED, black]), 0)
  r.check('pred_label_ids', labels.label_ids(r['pred_train']), 0)
  r.check('pred_color', labels.colours(r['pred_train']), 0)


@replays('sac', 'metrics')
def scores_while_training(r: Replay) -> None:
  counts = matrix(r['gt'], r['pred'], len(r['confusion']))
  r.check('confusion', counts, 0)
  r.check('tp', np.diag(counts), 0)
  r.check('fp', counts.sum(0) - np.diag(counts), 0)
  r.check('fn', counts.sum(1) - np.diag(counts), 0)
  found = published.training_scores(counts)
  for name in ('iou', 'precision', 'recall'):
    r.check(name, found[name], 1e-6)
  absent = labels.SYNTHIA_ABSENT
  for name, ignored in (('', ()), ('_16', absent), ('_13', absent + labels.SYNTHIA_RARE)):
    r.check(f'miou{name}', published.training_scores(counts, ignored)['mean_iou'], 1e-6)


@replays('sac', 'metrics')
def official_scores(r: Replay) -> None:
  counts = official.confusion(r['raw_gt'], r['raw_pred'])
  r.check('raw_confusion', counts, 0)
  found = official.class_iou(counts)
  r.check('official_nan', np.isnan(found), 0)
  r.check('official_iou', np.nan_to_num(found, nan=-1), 1e-6)
  r.check('official_mean', known_mean(found), 1e-6)
  categories = official.category_iou(counts)
  assert list(r['category_names']) == list(official.CATEGORIES)
  r.check('official_category_iou', np.nan_to_num(categories, nan=-1), 1e-6)
  r.check('official_category_mean', known_mean(categories), 1e-6)
  first = official.confusion(r['raw_gt'][0], r['raw_pred'][0])
  pixels = official.instance_pixels(r['instance_ids'], r['raw_pred'][0])
  things, grouped = official.instance_iou(first, pixels)
  names = labels.CLASS_NAMES[: labels.SCORED]
  order = [list(official.THINGS)[i] for i in range(len(things))]
  by_name = {names[official.CLASSES.index(c)]: v for c, v in zip(order, things, strict=True)}
  ours = [by_name[n] for n in r['instance_classes']]
  for key, found in (('instance_iou', ours), ('instance_category_iou_human_vehicle', grouped)):
    want = np.nan_to_num(r[key], nan=-1)
    r.check(key, np.nan_to_num(found, nan=-1), 1e-6, want=want)


@replays('sac', 'importance')
def sampling(r: Replay) -> None:
  classes, ignored = r['weights'].shape[1], tuple(r['ignore_classes'].tolist())
  counts = importance.counted(((str(i), m) for i, m in enumerate(r['maps'])), classes)
  r.check('weights', counts.shares, 1e-9)
  prior = float(r['prior'])
  found = importance.distribution(counts.shares, prior=prior, ignored=ignored)
  r.check('cumulative', found, 1e-9)
  nothing = importance.distribution(np.zeros_like(counts.shares), prior=prior)
  r.check('uniform_cumulative', nothing[0], 1e-9)
  draws = zip(r['draw_index'].tolist(), r['draw_u'].tolist(), strict=True)
  r.check('draw_selected', [importance.pick(found, n, u) for n, u in draws], 0)
