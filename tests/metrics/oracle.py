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
      found += {'one': [1.0], 'zero': [0.0], 'skip': []}[absent]
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


def best_dice(samples, readers, best='samples', **conventions):
  dice = 1 - between(samples, readers, distance='dice', **conventions)
  return np.mean(dice.max(1 if best == 'samples' else 0)) if len(dice) else np.nan


def matched_dice(samples, readers, **conventions):
  """The best of all ways to give each reader a sample of its own."""
  dice = 1 - between(samples, readers, distance='dice', **conventions)
  M, N = dice.shape
  if not M or M > N:
    return np.nan
  return max(np.mean(dice[range(M), way]) for way in itertools.permutations(range(N), M))


def area_crps(samples, readers, classes, estimator='v', ignore=None):
  """Mean over readers who know a pixel, and over classes, of areas within what the reader knows."""
  found = []
  for reader, k in itertools.product(knowing(readers, ignore, 'void'), classes):
    known = reader != ignore
    areas = [np.sum((s == k) & known) for s in samples]
    apart = np.mean([abs(a - np.sum(reader == k)) for a in areas])
    pairs = itertools.product if estimator == 'v' else itertools.permutations
    of_two = dict(repeat=2) if estimator == 'v' else dict(r=2)
    among = [abs(a - b) for a, b in pairs(areas, **of_two)]
    found.append(apart - np.mean(among) / 2 if among else np.nan)
  return np.mean(found) if found else np.nan


def soft_dice(probs, readers, classes, thresholds, absent='one', ignore=None):
  """probs [H, W, C] against the share of the readers who know a pixel, pixel by pixel."""
  at = [p for p in np.ndindex(readers[0].shape) if any(r[p] != ignore for r in readers)]
  shares = {p: [r[p] for r in readers if r[p] != ignore] for p in at}
  values = []
  for t in thresholds:
    each = []
    for k in classes:
      said = {p for p in at if probs[p][k] > t}
      truth = {p for p in at if np.mean([c == k for c in shares[p]]) > t + 1e-9}
      size = len(said) + len(truth)
      empty = {'one': [1.0], 'zero': [0.0], 'skip': []}[absent]
      each += [2 * len(said & truth) / size] if size else empty
    values += [np.mean(each)] if each else []
  return np.mean(values) if values else np.nan


def insight(samples, readers, k, ignore=None, own=False):
  """S, D and A of collective insight for class k, over the pixels of `distances`."""
  readers = knowing(readers, ignore, 'void')
  somebody = np.any([r != ignore for r in readers], 0)

  def ends(maps, known):
    values = []
    for i, j in itertools.product(range(len(maps)), repeat=2):
      if own or i != j:
        far = (maps[i] == k).astype(int) - (maps[j] == k)
        values.append(np.var(far[known[i] & known[j]]))
    return np.array([max(values), min(values)]) if values else np.full(2, np.nan)

  marked = np.any([r == k for r in readers], 0)
  met = marked & np.any([s == k for s in samples], 0)
  sense = np.sum(met) / np.sum(marked) if marked.any() else 1.0
  best = best_dice(samples, readers, classes=(k,), ignore=ignore, ignored='void')
  far = ends(readers, [r != ignore for r in readers]) - ends(samples, [somebody] * len(samples))
  return sense, best, 1 - np.abs(far).mean()


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
