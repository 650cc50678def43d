"""Temperature search, clusters and scaled logits against the recorded values."""

import numpy as np
from scipy.special import softmax

from car_jax.calibrate import base, clusters, temperature
from car_jax.calibrate.base import Sample
from car_jax.metrics import calibration, confidence_groups
from tests.metrics.published import pooled
from tests.replay import Replay, replays

IGNORED = 255


def sample_of(logits: np.ndarray, labels: np.ndarray, features=None) -> Sample:
  """Recorded logits [N, C] or [I, S, C] as a sample; the ignored label becomes -1."""
  if logits.ndim == 2:
    logits, labels = logits[None], labels[None]
  return Sample(logits, np.where(labels == IGNORED, -1, labels).astype(np.int32), features)


def grid_of(step: float) -> np.ndarray:
  return np.arange(0.5, 10, step)


@replays('relis', 'temperature')
def temperatures(r: Replay) -> None:
  grid = grid_of(0.01)
  r.check('grid', grid, 1e-6)
  for case in sorted(k.removesuffix('_T') for k in r.arrays if k.endswith('_T')):
    sample = sample_of(r[f'{case}_logits'], r[f'{case}_labels'])
    found = temperature.ece_search(temperature.flat(sample), grid=grid)
    r.check(f'{case}_T', found.temperature, 1e-3)
    r.check(f'{case}_ece_before', found.ece_at_one, 1e-4)
    r.check(f'{case}_ece_curve', found.curve, 1e-4)
    after = temperature.Temperature(np.float32(found.temperature))
    scores = base.scores(sample), base.scores(sample, after)
    r.check(f'{case}_ece_after', scores[1][1], 1e-4)
    r.check(f'{case}_nll_before', scores[0][0], 1e-4)
    r.check(f'{case}_nll_after', scores[1][0], 1e-4)
    by_nll = temperature.fit(sample)
    r.check(f'{case}_ext_T_nll', by_nll.temperature, 2e-3)
    r.check(f'{case}_ext_nll_at_T_nll', base.scores(sample, by_nll)[0], 1e-4)
    if (key := f'{case}_T_per_class_step05') in r:
      table = temperature.fit_per_class(sample, objective='ece', grid=grid_of(0.05)).table
      r.check(key, table, 0.05 + 1e-6)


@replays('relis', 'clustering')
def clustered(r: Replay) -> None:
  centroids = r['centroids']
  r.check('train_assignment', clusters.assign(r['train_features'], centroids), 0)
  r.check('test_assignment', clusters.assign(r['test_features'], centroids), 0)
  r.check('test_soft', clusters.closeness(r['test_features'], centroids), 1e-5)
  maps = np.moveaxis(r['backbone_map'], 0, -1)[None]
  r.check('pooled_feature', pooled(maps)[0], 1e-5)
  train = sample_of(r['train_logits'], r['train_labels'], r['train_features'])
  fit = lambda step, **kw: clusters.fit(
    train, centroids=centroids, objective='ece', grid=grid_of(step), **kw
  )
  plain, table = fit(0.05), fit(0.25, per_class=True)
  r.check('temperatures_step05', plain.table, 0.05 + 1e-6)
  r.check('per_class_temperatures_step25', table.table, 0.25 + 1e-6)
  # a step's difference is allowed above; what is scaled starts from the recorded tables
  plain = plain.replace(table=r['temperatures_step05'])
  table = table.replace(table=r['per_class_temperatures_step25'])
  logits, features = r['test_logits'], r['test_features']
  soft, published = plain.replace(soft=True), table.replace(reference_compat=True)
  for key, calibrator in {
    'scaled_hard_strided': plain,
    'scaled_soft_strided': soft,
    'scaled_per_class_ref_strided': published,
    'ext_scaled_per_class_intended_strided': table,
  }.items():
    r.check(
      key, np.asarray(calibrator.apply(logits, features=features))[:, ::5], 1e-5, relative=True
    )
  labels = r['test_labels']
  r.check('metrics_raw', measured(logits, labels), 1e-4)
  r.check('metrics_hard', measured(plain.apply(logits, features=features), labels), 1e-4)
  r.check('metrics_soft', measured(soft.apply(logits, features=features), labels), 1e-4)


def measured(logits: np.ndarray, labels: np.ndarray) -> list[float]:
  """ECE, adaptive ECE and KS error of the pixels that count."""
  counts = labels != IGNORED
  probs = np.asarray(softmax(np.asarray(logits)[counts], -1), np.float64)
  conf, hits = probs.max(-1), (probs.argmax(-1) == labels[counts]).astype(np.float64)
  groups = confidence_groups.tied(conf, hits)
  ece = calibration.ece(confidence_groups.binned(groups, 15))
  return [ece, confidence_groups.adaptive_ece_relis(groups, 15), confidence_groups.ks_error(groups)]
