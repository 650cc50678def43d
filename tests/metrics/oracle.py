"""The metrics as plain loops in numpy, written from their definitions, to test against."""

import itertools

import numpy as np


def pair(first, second, classes, absent='one', ignore=None, distance='iou', keep=None):
  """Mean IoU or Dice over classes of two maps [H, W]; nan if no class, or no pixel, is left.

  keep [H, W]: the pixels that count; without it the second map decides.
  """
  if keep is None:
    keep = np.ones(first.shape, bool) if ignore is None else second != ignore
  elif not keep.any():
    return float('nan')
  found = []
  for k in classes:
    a, b = (first == k) & keep, (second == k) & keep
    both, either = np.sum(a & b), np.sum(a | b)
    if either == 0:
      found += [1.0] if absent == 'one' else []
    else:
      found.append(both / either if distance == 'iou' else 2 * both / (np.sum(a) + np.sum(b)))
  return float(np.mean(found)) if found else float('nan')


def distances(maps, readers=0, ignored='class', **conventions):
  """1 - similarity of all pairs of maps [L, H, W]; the later map of a pair is its second.

  With ignored='void' a pixel counts where the readers of the pair, the first maps, know it; for two
  samples where any reader does.
  """
  found = np.zeros((len(maps), len(maps)))
  knows = [m != conventions.get('ignore') for m in maps[:readers]]
  knows += [np.any(knows, 0)] * (len(maps) - readers)
  for i, j in itertools.product(range(len(maps)), repeat=2):
    keep = knows[i] & knows[j] if ignored == 'void' else None
    found[i, j] = 1 - pair(maps[min(i, j)], maps[max(i, j)], keep=keep, **conventions)
  return found


def knowing(readers, ignore=None, ignored='class', **_):
  """The readers who say something of any pixel."""
  return [r for r in readers if ignored == 'class' or (r != ignore).any()]


def between(samples, readers, **conventions):
  """Distances of readers who say something to samples [M, N]."""
  readers = knowing(readers, **conventions)
  return distances([*readers, *samples], len(readers), **conventions)[
    : len(readers), len(readers) :
  ]


def energy(samples, readers, estimator='v', **conventions):
  """(ged, d_ys, d_ss, d_yy) of samples [N, H, W] and readers [M, H, W], all weights equal."""
  readers = knowing(readers, **conventions)
  if not (M := len(readers)):
    return (np.nan,) * 4
  far = distances([*readers, *samples], M, **conventions)

  def own(block):
    pairs = [block[i, j] for i, j in np.ndindex(block.shape) if estimator == 'v' or i != j]
    return np.mean(pairs) if pairs else np.nan

  ys, ss, yy = np.mean(far[:M, M:]), own(far[M:, M:]), own(far[:M, :M])
  return 2 * ys - ss - yy, ys, ss, yy


def matched_iou(samples, readers, **conventions):
  """Both sides repeated to the least common multiple, then the best one-to-one assignment."""
  from scipy.optimize import linear_sum_assignment

  iou = 1 - between(samples, readers, **conventions)
  M, N = iou.shape
  if not M:
    return np.nan
  total = np.lcm(M, N)
  iou = np.repeat(np.repeat(iou, total // M, 0), total // N, 1)
  rows, columns = linear_sum_assignment(iou, maximize=True)
  return np.mean(iou[rows, columns])


def best_dice(samples, readers, **conventions):
  dice = 1 - between(samples, readers, distance='dice', **conventions)
  return np.mean(dice.max(1)) if len(dice) else np.nan


def ece(conf, hits, valid, bins):
  """Bins (k/K, (k+1)/K], the first one closed at 0; conf, hits, valid of any one shape."""
  conf, hits = np.float32(conf)[valid], np.asarray(hits, np.float64)[valid]
  if not conf.size:
    return float('nan')
  total = 0.0
  for k in range(bins):
    x = conf * np.float32(bins)
    member = (x > k) & (x <= k + 1) | ((k == 0) & (conf == 0))
    if member.any():
      gap = abs(conf[member].astype(np.float64).mean() - hits[member].mean())
      total += gap * member.mean()
  return total
