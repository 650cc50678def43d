"""Samples against readers: D-Persona's scores, volumes, collective insight against the record."""

import jax
import numpy as np

from car_jax.metrics import readers as reader_scores
from car_jax.metrics import stochastic, volumes
from tests.replay import Replay, replays


def compared(samples: np.ndarray, readers: np.ndarray, **conventions) -> stochastic.Comparison:
  maps = (np.asarray(x, np.int32) for x in (samples, readers))
  return stochastic.compare(*maps, classes=(1,), **conventions)


@replays('trust', 'readers')
def published(r: Replay) -> None:
  """D-Persona: two empty maps are apart in GED, and equal in Dice."""
  readers, probs = r['readers'], r['samples_250ths'] / 250.0
  ours = scores(readers, probs)
  each = ours.pop('dice_each')
  r.check('dpersona/dice_each', each, 2e-6)
  with jax.enable_x64(True):
    apart = stochastic.ged(compared(probs > 0.5, readers, absent='zero'))
    ours |= dict(ged=apart.ged, cross=apart.d_ys, d_readers=apart.d_yy, d_samples=apart.d_ss)
    ours['ged_x'] = stochastic.ged(compared(probs > 0.5, readers), estimator='u').ged
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


def scores(readers: np.ndarray, probs: np.ndarray) -> dict[str, np.ndarray]:
  with jax.enable_x64(True):
    c = compared(probs > 0.5, readers)
    dice = {k: np.asarray(stochastic.max_dice(c, best=k)) for k in ('readers', 'samples')}
    front = probs.mean(1)
    found = dict(
      dice_max=dice['readers'],
      dice_max_reverse=dice['samples'],
      dice_match=reader_scores.dice_match(c),
      dice_each=reader_scores.dice_each(c),
      dice_soft=reader_scores.dice_soft(np.stack([1 - front, front], -1), readers.astype(np.int32)),
    )
  return {k: np.asarray(v) for k, v in found.items()}


@replays('trust', 'readers')
def spec(r: Replay) -> None:
  readers, probs = r['readers'], r['samples_250ths'] / 250.0
  found = scores(readers, probs)
  ours = dict(dice_max_over_samples=found['dice_max_reverse'])
  ours |= dict(dice_max_over_readers=found['dice_max'])
  ours |= {k: found[k] for k in ('dice_match', 'dice_soft')}
  with jax.enable_x64(True):
    c = compared(probs > 0.5, readers)
    ours |= {f'ged_{e}': stochastic.ged(c, estimator=e).ged for e in 'vu'}
    areas = {e: np.asarray(reader_scores.crps_area(c, estimator=e)) for e in 'vu'}
    maps = (probs > 0.5).astype(np.int32), readers.astype(np.int32)
    for pairs in ('self', 'distinct'):
      ci = reader_scores.collective_insight(*maps, c, pairs=pairs)
      ours |= {f'D_a_{pairs}': ci.diversity, f'CI_{pairs}': ci.value}
    harmonic = reader_scores.collective_insight(*maps, c, mean='harmonic')
    ours |= dict(S_c=ci.sensitivity, D_max=ci.max_dice, CI_harmonic_distinct=harmonic.value)
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
