"""The metrics as plain loops in numpy, written from their definitions, to test against."""

import itertools

import numpy as np


def pair(first, second, classes, absent='one', ignore=None, distance='iou'):
  """Mean IoU or Dice over classes of two maps [H, W]; nan if no class is left."""
  keep = np.ones(first.shape, bool) if ignore is None else second != ignore
  found = []
  for k in classes:
    a, b = (first == k) & keep, (second == k) & keep
    both, either = np.sum(a & b), np.sum(a | b)
    if either == 0:
      found += [1.0] if absent == 'one' else []
    else:
      found.append(both / either if distance == 'iou' else 2 * both / (np.sum(a) + np.sum(b)))
  return float(np.mean(found)) if found else float('nan')


def distances(maps, **conventions):
  """1 - similarity of all pairs of maps [L, H, W]; the later map of a pair is its second."""
  found = np.zeros((len(maps), len(maps)))
  for i, j in itertools.product(range(len(maps)), repeat=2):
    found[i, j] = 1 - pair(maps[min(i, j)], maps[max(i, j)], **conventions)
  return found


def energy(samples, readers, estimator='v', **conventions):
  """(ged, d_ys, d_ss, d_yy) of samples [N, H, W] and readers [M, H, W], all weights equal."""
  M = len(readers)
  far = distances([*readers, *samples], **conventions)

  def own(block):
    pairs = [block[i, j] for i, j in np.ndindex(block.shape) if estimator == 'v' or i != j]
    return np.mean(pairs) if pairs else np.nan

  ys, ss, yy = np.mean(far[:M, M:]), own(far[M:, M:]), own(far[:M, :M])
  return 2 * ys - ss - yy, ys, ss, yy


def matched_iou(samples, readers, **conventions):
  """Both sides repeated to the least common multiple, then the best one-to-one assignment."""
  from scipy.optimize import linear_sum_assignment

  M, N = len(readers), len(samples)
  total = np.lcm(M, N)
  iou = 1 - distances([*readers, *samples], **conventions)[:M, M:]
  iou = np.repeat(np.repeat(iou, total // M, 0), total // N, 1)
  rows, columns = linear_sum_assignment(iou, maximize=True)
  return np.mean(iou[rows, columns])


def best_dice(samples, readers, **conventions):
  each = [max(pair(y, s, distance='dice', **conventions) for s in samples) for y in readers]
  return np.mean(each)


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
