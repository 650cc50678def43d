"""Volumes, calibration and consensus of CURVAS against the recorded values."""

import numpy as np

from car_jax.metrics import calibration, confidence_groups, readers, volumes
from tests.replay import Replay, replays
from tests.whole import whole

THRESHOLDS_2025 = (0.1, 0.24, 0.38, 0.52, 0.66, 0.8)
PAD = ((20, 20),) * 3


@replays('trust', 'volume')
def organs(r: Replay) -> None:
  marks, probs = r['readers'], r['probs_100ths'] / 100.0
  classes = range(1, probs.shape[1])
  unit = r['voxel'].prod()
  for i, (y, p) in enumerate(zip(marks, probs, strict=True)):
    spec, published = f'spec/case{i}', f'curvas2024/case{i}'
    size = np.stack([(y == c).sum((1, 2, 3)) for c in classes])  # [C, M]
    predicted = p[1:].sum((1, 2, 3))
    r.check(f'{spec}/volumes', size, 0)
    r.check(f'{spec}/predicted_volume', predicted, 1e-9)
    r.check(f'{spec}/crps_normal_closed', volumes.curvas_crps(predicted, size), 1e-9)
    empirical = volumes.crps(size, predicted[:, None])
    r.check(f'{spec}/crps_readers_empirical', empirical, 1e-9)
    errors = [top_label_error(p, m) for m in y]
    r.check(f'{spec}/ece50_clipped', errors, 1e-6)  # recorded in float32
    said = p.argmax(0)
    dice = [volumes.consensus_dice(y, said, c) for c in classes]
    r.check(f'{spec}/consensus_dice_whole_volume', dice, 1e-9)
    sure = [volumes.consensus_confidence(y, p[c], c) for c in classes]
    r.check(f'{published}/consensus_confidence', sure, 1e-6)
    if np.abs(errors - r.arrays[f'{published}/ece']).max() > 1e-2:
      r.leave_out('a softmax of probabilities, since one was below 0', f'{published}/ece')
    else:
      r.check(f'{published}/ece', errors, 1e-6)
    for name, scale in (('voxels', 1.0), ('mm3', unit)):
      if f'{published}/crps_{name}' in r:
        value = volumes.curvas_crps(scale * predicted, scale * size, form='curvas')
        r.check(f'{published}/crps_{name}', value, 5e-3, relative=True)
        r.check(f'{published}/mean_volume_{name}', scale * size.mean(1), 1e-9, relative=True)
        r.check(f'{published}/std_volume_{name}', scale * size.std(1), 1e-9, relative=True)
  r.leave_out('stops where a reader lacks a class', '*_error')
  r.leave_out('of image rows: the first axis is taken for classes', '*/consensus_dice')


def widened(marked: np.ndarray) -> tuple[slice, ...]:
  """The published box: 20 pixels around what any reader marks, one less at the far ends."""
  place = np.argwhere(marked)
  return tuple(slice(a - 20, b + 20) for a, b in zip(place.min(0), place.max(0), strict=True))


def top_label_error(probs: np.ndarray, labels: np.ndarray) -> float:
  """ECE over 50 bins that are closed below; the likeliest of [C, ..]."""
  p = np.clip(probs, 0, 1)
  groups = confidence_groups.tied(p.max(0).reshape(-1), (p.argmax(0) == labels).reshape(-1))
  return calibration.ece(confidence_groups.binned(groups, 50, closed='left'))


@replays('trust', 'volume')
def one_organ(r: Replay) -> None:
  marks, probs = r['binary_readers'], r['probs_100ths'][:, 1] / 100.0
  for i, (y, p) in enumerate(zip(marks, probs, strict=True)):
    at, size = f'curvas2025/case{i}', y.sum((1, 2, 3))
    r.check(f'{at}/volumes', size, 0)
    r.check(f'{at}/predicted_volume', p.sum(), 1e-6)
    crps = volumes.curvas_crps(p.sum(), size, form='curvas')
    r.check(f'{at}/crps', crps, 5e-3, relative=True)
    probs_of_all = np.stack([1 - p, p], -1).reshape(1, 1, -1, 2)
    maps = y.astype(np.int32).reshape(1, len(y), 1, -1)
    dice = whole(readers.dice_soft)(probs_of_all, maps, thresholds=THRESHOLDS_2025)
    r.check(f'{at}/thresholded_dice', dice[0], 1e-6)
    if f'{at}/ece_padded' not in r:
      continue  # nobody marks anything
    box = widened(np.pad(y.any(0), PAD))
    near = np.pad(p, PAD)[box]
    errors = [top_label_error(np.stack([1 - near, near]), np.pad(m, PAD)[box]) for m in y]
    r.check(f'{at}/ece_padded', errors, 1e-6)
  r.leave_out('a box with a negative start wraps round', '*/ece_as_called')
  r.leave_out('STAPLE is not done here', '*/dice_with_majority_as_staple')
