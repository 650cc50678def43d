"""Confidences of images by aggregated uncertainty, samples and soft Dice against the record."""

import numpy as np

from car_jax.metrics import aggregate, ranking, selective, soft_dice, stochastic
from tests.replay import Replay, replays
from tests.whole import whole

VALUES = dict(sum='sum', mean='mean', patch10_mean='patch[10]')
# of log C minus entropy; the least window of that is the largest one of the entropy
SFB = dict(
  mean='mean', min='max', p05='quantile[0.95]', p95='quantile[0.05]', patch_min10='patch[10]'
)
SFB |= dict(
  boundary2='boundary[2]',
  boundary4='boundary[4]',
  not_boundary4='off_boundary[4]',
  foreground='foreground',
)
SFB |= dict(foreground_inner4='inner[4]', background_outer4='outer[4]', distance4='distance[4]')
AGGRIGATOR = dict(mean='mean', max='max', std='std', quantile95='quantile[0.95]')
AGGRIGATOR |= dict(above_quantile_mean90='above_quantile[0.9]', patch10='patch[10]')
AGGRIGATOR |= dict(above_quantile_mean_fg='above_quantile[fg]', moran='moran', geary='geary')
AGGRIGATOR |= dict(above_threshold_mean30='above[0.3]', above_threshold_volume30='volume[0.3]')
AGGRIGATOR |= dict(mass_ratio_eds3='mass_ratio[edges]', mass_ratio_entropy3='mass_ratio[entropy]')
AGGRIGATOR |= dict(mass_ratio_moran3='mass_ratio[moran]')


@replays('trust', 'aggregate')
def maps(r: Replay) -> None:
  entropy, said = r['entropy'].astype(np.float64), r['prediction']
  images, _, classes = r['samples_40ths'].shape[:3]
  most = np.log(classes)
  run = lambda u, how: np.array(
    [aggregate.aggregate(u[i], how, prediction=said[i]) for i in range(images)]
  )
  for name, how in VALUES.items():
    r.check(f'values/{name}', run(entropy, how), 1e-6, relative=True)
  for k in (5, 10):
    r.check(f'values/patch{k}_sum', k**2 * run(entropy, f'patch[{k}]'), 1e-6, relative=True)
  for name, how in SFB.items():
    r.check(f'sfb/{name}', most - run(entropy, how), 1e-6)
  r.check('sfb/per_foreground_pixel', run(most - entropy, 'per_foreground'), 1e-6)
  r.check('sfb/components', run(entropy, 'components'), 0)
  r.check('sfb/foreground_size', np.mean(said != 0, (1, 2)), 1e-6)
  varied = np.ptp(entropy, (1, 2)) > 0
  for name, how in AGGRIGATOR.items():
    key, ours = f'aggrigator/{name}', run(entropy / most, how)
    constant = name in ('moran', 'geary')  # a constant map has no correlation: ours is nan there
    kept = varied if constant else np.ones(images, bool)
    r.check(key, ours[kept], 1e-6, want=r.arrays[key][kept])
  for name, border in (('class_means', False), ('boundary_means', True)):
    views = [aggregate.Map(u, u == u, p) for u, p in zip(entropy / most, said, strict=True)]
    ours = [aggregate.class_means(m, classes, border=border) for m in views]
    r.check(f'aggrigator/{name}', ours, 1e-6)
  global_threshold(r, entropy, run)
  r['expected_entropy']


def global_threshold(r: Replay, entropy: np.ndarray, run) -> None:
  t = aggregate.background_threshold(entropy, r['sample_labels'])
  r.check('values/threshold', t, 1e-6)
  r.check('values/threshold_quantile', np.mean(r['sample_labels'] == 0), 1e-12)
  above, pixels = run(entropy, f'above[{t!r}]'), entropy[0].size
  r.check('values/threshold_mean', above, 1e-6)
  r.check('values/threshold_sum', above * run(entropy, f'volume[{t!r}]') * pixels, 1e-3)
  pairs = zip(entropy, r['ncc/truth_map'], strict=True)
  r.check('values/ncc', [aggregate.ncc(*pair) for pair in pairs], 1e-6)


@replays('trust', 'aggregate')
def samples(r: Replay) -> None:
  labels = r['sample_labels'].astype(np.int32)
  probs = np.moveaxis(r['samples_40ths'] / 40.0, 2, -1).mean(1)
  classes, said = probs.shape[-1], r['prediction']
  dice = lambda *ids: whole(stochastic.pairwise_dice)(labels, classes=ids)
  r.check('sfb/pairwise_dice', dice(*range(1, classes)), 1e-6)
  r.check('sfb/pairwise_dice_with_background', dice(*range(classes)), 1e-6)
  r.leave_out('depends on the order of the samples', 'sfb/pairwise_generalized_dice*')
  front = 1 - probs[..., 0]
  p = front.astype(np.float32)
  r.check('sdc/foreground_published', soft_dice.confidence(p, front > 0.5, empty='zero'), 1e-6)
  each = [soft_dice.confidence(probs[..., c], empty='zero') for c in range(1, classes)]
  r.check('sdc/classes_published', np.stack(each, -1), 1e-6)
  scores = np.asarray(soft_dice.class_scores(probs, said))[:, 1:]
  r.check('sdc/classes_argmax', np.nan_to_num(scores), 1e-6)
  r.check('sdc/mean_over_classes_argmax', np.nan_to_num(scores).mean(-1), 1e-6)
  predicted = np.asarray(soft_dice.class_confidence(probs, said, empty='zero'))
  none = np.isnan(scores).all(-1)
  r.check('sdc/mean_over_predicted_classes_argmax', np.where(none, np.nan, predicted), 1e-6)


@replays('trust', 'aggregate')
def judged(r: Replay) -> None:
  """Each recorded score as a confidence, by the recorded risks; doubtful ones are turned."""
  truth, said = r['label'], r['prediction']
  dice = class_dice(truth, said, r['samples_40ths'].shape[2])
  r.check('dice_classes', dice, 1e-12)
  risk = r['risk']
  r.check('risk', 1 - dice.mean(-1), 1e-12)
  for key in [k for k in r.arrays if k.startswith('judged/') and k.endswith('/aurc')]:
    source, _, name = key.removeprefix('judged/').removesuffix('/aurc').partition('/')
    score = r.arrays[f'{source}/{name}'].astype(np.float64)
    confidence = -score if source in ('values', 'aggrigator') else score
    at = f'judged/{source}/{name}'
    found = selective.areas(confidence, risk, form='trapezoid')
    r.check(f'{at}/aurc', found.aurc, 1e-12)
    r.check(f'{at}/augrc', found.augrc, 1e-12)
    r.check(f'{at}/eaurc', found.e_aurc, 1e-12)
    counts = ranking.by_value(-confidence, r['failed'] == 1)
    r.check(f'{at}/auroc_failed', ranking.auroc(*counts), 1e-12)


def class_dice(a: np.ndarray, b: np.ndarray, classes: int) -> np.ndarray:
  """[N, C-1], 1 where neither has the class."""
  on = lambda m, c: (m == c).reshape(len(m), -1)
  each = [(on(a, c), on(b, c)) for c in range(1, classes)]
  sizes = [(x.sum(1) + y.sum(1), (x & y).sum(1)) for x, y in each]
  return np.stack([np.where(s > 0, 2 * i / np.maximum(s, 1), 1.0) for s, i in sizes], -1)
