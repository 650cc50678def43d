"""Components as sets of pixels, one at a time: what component scores are tested against."""

import numpy as np


def flooded(mask):
  """Components of eight neighbours as sets of pixels, by first pixel."""
  left, out = {tuple(p) for p in np.argwhere(mask)}, []
  while left:
    part, edge = set(), [min(left)]
    while edge:
      y, x = edge.pop()
      if (y, x) in left:
        left.remove((y, x))
        part.add((y, x))
        edge += [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    out.append(part)
  return out


def siou(one, others, own_kind):
  """Of a component, the components of the other side, and the other components of its own."""
  union = set().union(*[o for o in others if o & one])
  elsewhere = set().union(*[o for o in own_kind if o is not one])
  shared = len(union & one)
  return shared / (len(union) + len(one) - shared - len(union & elsewhere))


def by_sets(predicted, labels, least_predicted, least_true):
  """sIoU of true ones, then sIoU and PPV of predicted ones."""
  ours = [c for c in flooded(predicted & (labels != 255)) if len(c) >= least_predicted]
  theirs = flooded(labels == 1)
  gone = set().union(*[c for c in theirs if len(c) < least_true])
  theirs = [c for c in theirs if len(c) >= least_true]
  ours = [c - gone for c in ours if c - gone]
  truth = set().union(*theirs)
  return (
    [siou(c, ours, theirs) for c in theirs],
    [siou(c, theirs, ours) for c in ours],
    [len(c & truth) / len(c) for c in ours],
  )
