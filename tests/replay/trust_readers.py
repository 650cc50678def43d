"""Samples against readers: D-Persona's scores, volumes, collective insight against the record."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.metrics import readers as reader_scores
from car_jax.metrics import stochastic, volumes
from tests.replay import Replay, replays
from tests.whole import whole


def compared(samples: np.ndarray, readers: np.ndarray, **conventions) -> stochastic.Comparison:
  maps = (jnp.asarray(x, jnp.int32) for x in (samples, readers))
  return stochastic.compare(*maps, classes=(1,), **conventions)


@replays('trust', 'readers')
def published(r: Replay) -> None:
  """D-Persona: two empty maps are apart in GED, and equal in Dice."""
  readers, probs = r['readers'], r['samples_250ths'] / 250.0
  ours = scores(readers, probs)
  each = ours.pop('dice_each')
  r.check('dpersona/dice_each', each, 2e-6)
  with jax.enable_x64(True):
    apart, fair = whole(energies)(probs > 0.5, readers)
  ours |= dict(ged=apart.ged, cross=apart.d_ys, d_readers=apart.d_yy, d_samples=apart.d_ss)
  ours['ged_x'] = fair.ged
  ours = {k: np.asarray(v) for k, v in ours.items()}
  ours['soft_dice_old'] = ours['dice_soft']
  for name, values in ours.items():
    tolerance = 1e-3 if 'soft' in name else 2e-6
    r.check(f'dpersona/{name}', values, tolerance)
    r.check(f'dpersona/mean/{name}', np.mean(values), tolerance)
  flat = lambda x: np.moveaxis(x, 0, 1).reshape(1, x.shape[1], -1, x.shape[-1])
  for name, values in scores(flat(readers), flat(probs)).items():
    if name != 'dice_each':
      r.check(f'dpersona/batch/{name}', values[0], 1e-3 if name == 'dice_soft' else 2e-6)
  r.leave_out('stops with fewer samples than readers, where ours is nan', 'dpersona/few_*')


def energies(samples: jax.Array, readers: jax.Array) -> tuple[stochastic.GED, stochastic.GED]:
  """Two empty maps apart; and alike, without pairs of a map with itself."""
  apart = stochastic.ged(compared(samples, readers, absent='zero'))
  return apart, stochastic.ged(compared(samples, readers), estimator='u')


def scores(readers: np.ndarray, probs: np.ndarray) -> dict[str, np.ndarray]:
  front = probs.mean(1)
  with jax.enable_x64(True):
    return whole(dices)(probs > 0.5, readers.astype(np.int32), np.stack([1 - front, front], -1))


def dices(samples: jax.Array, readers: jax.Array, probs: jax.Array) -> dict[str, jax.Array]:
  c = compared(samples, readers)
  return dict(
    dice_max=stochastic.max_dice(c, best='readers'),
    dice_max_reverse=stochastic.max_dice(c, best='samples'),
    dice_match=reader_scores.dice_match(c),
    dice_each=reader_scores.dice_each(c),
    dice_soft=reader_scores.dice_soft(probs, readers),
  )


@replays('trust', 'readers')
def spec(r: Replay) -> None:
  readers, probs = r['readers'], r['samples_250ths'] / 250.0
  found = scores(readers, probs)
  ours = dict(dice_max_over_samples=found['dice_max_reverse'])
  ours |= dict(dice_max_over_readers=found['dice_max'])
  ours |= {k: found[k] for k in ('dice_match', 'dice_soft')}
  maps = (probs > 0.5).astype(np.int32), readers.astype(np.int32)
  with jax.enable_x64(True):
    more, areas = whole(insights)(*maps)
  ours |= more
  for name, values in ours.items():
    values = np.asarray(values)
    r.check(f'spec/{name}', values, 1e-9)
    r.check(f'spec/mean/{name}', np.mean(values), 1e-9)
  sizes = [np.sum(x, (2, 3)) for x in maps]
  r.check('spec/sample_volumes', sizes[0], 0)
  r.check('spec/reader_volumes', sizes[1], 0)
  for e in 'vu':
    r.check(f'spec/crps_samples_{e}', volumes.crps(*sizes, estimator=e), 1e-9)
    r.check(f'spec/crps_samples_{e}', areas[e], 1e-9)
  r.check('spec/volume_energy_v', volumes.energy(*sizes), 1e-9)


def insights(samples: jax.Array, readers: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
  """GED and collective insight by their names in the record; the CRPS of areas by its estimator."""
  c = compared(samples, readers)
  out = {f'ged_{e}': stochastic.ged(c, estimator=e).ged for e in 'vu'}
  for pairs in ('self', 'distinct'):
    ci = reader_scores.collective_insight(samples, readers, c, pairs=pairs)
    out |= {f'D_a_{pairs}': ci.diversity, f'CI_{pairs}': ci.value}
  harmonic = reader_scores.collective_insight(samples, readers, c, mean='harmonic')
  out |= dict(S_c=ci.sensitivity, D_max=ci.max_dice, CI_harmonic_distinct=harmonic.value)
  return out, {e: reader_scores.crps_area(c, estimator=e) for e in 'vu'}
