"""Conformal thresholds, sets, margins and shifts against the recorded values."""

import numpy as np

from car_jax.metrics import adaptive, conformal, margins
from car_jax.metrics import conformal_counts as counts
from tests.replay import Replay, replays
from tests.whole import whole

CRC_GRID = np.linspace(0, 1, 1000)


def alphas(r: Replay, prefix: str) -> list[str]:
  """'05' and others of the keys that begin with prefix."""
  tails = [k.removeprefix(prefix) for k in r.arrays if k.startswith(prefix)]
  return sorted({t.partition('/')[0] for t in tails})


def number(text: str) -> float:
  return float(f'0.{text}')


def probabilities(r: Replay) -> np.ndarray:
  return r['probs_200ths'] / 200.0


def on_grid(p: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray:
  """Histograms [B, R, K] of maps [B, H, W] with weights [B, R, H, W]."""
  flat = lambda x: x.reshape(*x.shape[:-2], -1)
  return whole(counts.histogram)(flat(p).astype(np.float32), flat(weight).astype(np.int32), edges)


@replays('trust', 'conformal')
def masks(r: Replay) -> None:
  p, truth, some = probabilities(r), r['truth'] == 1, r['truth_with_empties'] == 1
  fitted, test = r['calibration'], r['test']
  edges = np.arange(201) / 200
  losses = counts.fnr(on_grid(p, truth[:, None], edges.astype(np.float32))[:, 0])
  for name in alphas(r, 'spec/alpha'):
    alpha, at = number(name), f'spec/alpha{name}'
    found = lambda y: [p[i][y[i]] for i in fitted]
    choice = conformal.exact(found(truth), alpha)
    r.check(f'{at}/threshold', choice.value, 0)
    grid = conformal.choose(edges, conformal.add_up(losses[fitted]), alpha)
    r.check(f'{at}/threshold', grid.value, 0, name=f'{at}/threshold by counts')
    t = choice.value
    missed = [1 - np.mean(p[i][truth[i]] >= t) for i in test]
    r.check(f'{at}/test_fnr', missed, 1e-12)
    r.check(f'{at}/set_share', np.mean(p[test] >= t, (1, 2)), 1e-12)
    oracle = [adaptive.oracle_threshold(p[i][truth[i]], alpha) for i in range(len(p))]
    r.check(f'{at}/oracle_thresholds', oracle, 0)
    r.check(f'luq/alpha{name}/oracle_thresholds', oracle, 1e-9)
    for key, empty in (('empties_left_out', 'leave_out'), ('empties_loss_zero', 'zero')):
      choice = conformal.exact(found(some), alpha, empty=empty)
      r.check(f'{at}/threshold_{key}', choice.value, 0)
    crc = counts.fnr(on_grid(p[fitted], truth[fitted][:, None], CRC_GRID.astype(np.float32))[:, 0])
    found_there = conformal.choose(CRC_GRID, conformal.add_up(crc), alpha)
    r.check(f'conformal_risk/alpha{name}/threshold', found_there.value, 1e-12)
    r.check(f'tutorial/alpha{name}/threshold', t, 1e-6)
  r.leave_out('on either side of a step of the risk', 'tutorial/*/calibration_excess')
  places = [
    (y == k, i) for k in range(1, r['objects'].max() + 1) for i, y in enumerate(r['objects'])
  ]
  for t in alphas(r, 'conformal_risk/per_object_fnr/'):
    missed = [1 - np.mean(p[i][y] >= number(t)) for y, i in places if y.any()]
    r.check(f'conformal_risk/per_object_fnr/{t}', missed, 1e-6)


@replays('trust', 'conformal')
def shifts(r: Replay) -> None:
  p, truth, some = probabilities(r), r['truth'] == 1, r['truth_with_empties'] == 1
  fitted, test, tau = r['calibration'], r['test'], r['luq/predicted_thresholds']
  half = np.full(len(p), 0.5)
  run = lambda y, t, alpha, **kw: (
    adaptive.shift([p[i][y[i]] for i in fitted], t[fitted], alpha, **kw).value
  )
  for name in alphas(r, 'spec/alpha'):
    alpha, at = number(name), f'luq/alpha{name}'
    r.check(f'{at}/shift_constant', run(truth, half, alpha), 1e-4)
    uneven = run(truth, tau, alpha)
    r.check(f'{at}/shift_uneven', uneven, 1e-4)
    r.check(f'{at}/shift_constant_empties', run(some, half, alpha, empty='zero'), 1e-4)
    limits = adaptive.shifted(tau, uneven)
    cover = np.array([np.mean(p[i][truth[i]] >= limits[i]) for i in test])
    r.check(f'{at}/test_coverage', cover, 1e-6)
    r.check(f'{at}/test_coverage_gap', conformal.kept(1 - cover, alpha).gap, 1e-6)
  for key, y in (('soft_miscoverage', truth), ('soft_miscoverage_empties', some)):
    for name in alphas(r, f'luq/{key}/alpha'):
      loss = whole(adaptive.soft_miscoverage)(p, y, tau, alpha=number(name))
      r.check(f'luq/{key}/alpha{name}', loss, 1e-6)


@replays('trust', 'conformal')
def classes(r: Replay) -> None:
  p, labels = np.moveaxis(r['multi/probs_100ths'], 1, -1) / 100.0, r['multi/label']
  images, number_of = len(p), p.shape[-1]
  flat = p.reshape(images, -1, number_of), labels.reshape(images, -1)
  edges = np.arange(101) / 100
  found = whole(counts.image_label_counts)(
    flat[0].astype(np.float32), flat[1], edges=edges.astype(np.float32)
  )
  for name in alphas(r, 'spec/multi/lac_lambda/'):
    choice = conformal.choose(edges, conformal.add_up(counts.miscoverage(found)), number(name))
    r.check(f'spec/multi/lac_lambda/{name}', 1 - choice.value, 1e-12)
  for c in range(number_of):
    losses = conformal.add_up(counts.class_fnr(found)[:, c])
    r.check(f'spec/multi/class{c}/images', losses.images, 0)
    for name in alphas(r, f'spec/multi/class{c}/threshold/'):
      choice = conformal.choose(edges, losses, number(name))
      r.check(f'spec/multi/class{c}/threshold/{name}', choice.value, 0)
  sets(r, p, labels)


def sets(r: Replay, p: np.ndarray, labels: np.ndarray) -> None:
  lambdas = r['multi/lambdas']
  limit = lambda form, x: 1 - x if form == 'lac' else x
  for form, make in (('lac', counts.lac_sets), ('aps', counts.aps_sets)):
    said = [np.asarray(make(p, limit(form, x))) for x in lambdas]
    rows = [measured(s, labels) for s in said]
    tolerance = 1e-6 if form == 'lac' else 1e-2
    missed = np.stack([m for m, _ in rows], -1)
    r.check(f'cose/{form}/miscoverage', missed, tolerance)
    r.check(f'cose/{form}/mean_set_size', np.stack([s for _, s in rows], -1), tolerance)
    if form == 'lac':
      for tau in ('90', '99'):
        rounded = missed.astype(np.float32).astype(np.float64)  # 0.9 in float32 is less than 0.9
        r.check(f'cose/lac/binary_loss{tau}', counts.uncovered(rounded, number(tau)), 0)
  for name in alphas(r, 'cose/risk_bound/'):
    r.check(f'cose/risk_bound/{name}', conformal.risk_limit(number(name), len(labels)), 1e-12)


def measured(said: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Of each image the share of labelled pixels not covered, and their mean set size."""
  seen = labels < said.shape[-1]
  own = np.take_along_axis(said, np.where(seen, labels, 0)[..., None].astype(int), -1)[..., 0]
  mean = lambda x: np.array([v[s].mean() for v, s in zip(x, seen, strict=True)])
  return 1 - mean(own), mean(said.sum(-1))


@replays('trust', 'conformal')
def several_readers(r: Replay) -> None:
  marks, p = r['multi_reader/readers'] == 1, r['multi_reader/probs_100ths'] / 100.0
  edges = np.arange(101) / 100
  names = dict(mean='mean_reader_empty_zero', marking='mean_over_marking_readers')
  names |= dict(worst='worst_reader', union='union', majority='majority', share='share_weighted')
  flat = marks.reshape(*marks.shape[:2], -1)
  for form, name in names.items():
    weight = whole(counts.reader_weights)(flat, form).reshape(len(p), -1, *p.shape[1:])
    losses = counts.reader_losses(on_grid(p, weight, edges.astype(np.float32)), form)
    total = conformal.add_up(losses)
    r.check(f'multi_reader/{name}/images', total.images, 0)
    r.check(f'multi_reader/{name}/loss_at_50', losses[:, 50], 1e-12)
    for alpha in alphas(r, f'multi_reader/{name}/threshold/'):
      choice = conformal.choose(edges, total, number(alpha))
      r.check(f'multi_reader/{name}/threshold/{alpha}', choice.value, 0)


@replays('trust', 'conformal')
def dilations(r: Replay) -> None:
  p, truth = probabilities(r), r['truth'] == 1
  for tau in alphas(r, 'consema/scores/'):
    share = float(tau) / 100
    found = np.array([margins.margin(q > 0.5, y, share) for q, y in zip(p, truth, strict=True)])
    r.check(f'consema/scores/{tau}', np.where(np.isinf(found), -1, found), 0)
    for name in alphas(r, f'spec/margin/{tau}/'):
      value = margins.quantile(found[r['calibration']], number(name))
      r.check(f'spec/margin/{tau}/{name}', -1 if np.isinf(value) else value, 0)
  r.leave_out('one rank too high', 'consema/quantile/*')
