"""What predictions.csv says of an image or a volume. Letters: N samples, C classes."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.data.sources import DataInfo
from car_jax.predict.volumes import Volume
from car_jax.report.table import csv

GROUP = 512  # samples that are compared with as many others at a time
BLOCK = 1 << 23  # pixels of all of them at a time
AREA = 'area: '
SCORES = {
  'mean_entropy': 'mean entropy',
  'max_entropy': 'largest entropy',
  'mean_mutual_information': 'mean mutual information',
  'pairwise_dice': 'Dice of two samples',
}


def class_names(info: DataInfo) -> tuple[str, ...]:
  """A name for each class; its number where there is none, or where two have one name."""
  names = [str(n) for n in info.class_names]
  if len(names) == info.num_classes and len({*names}) == len(names):
    return tuple(names)
  return tuple(map(str, range(info.num_classes)))


def compared_classes(info: DataInfo) -> tuple[int, ...]:
  """Those that samples are compared on, as reports do it: the second of two, else all."""
  known = [k for k in range(info.num_classes) if k != info.ignore_label]
  return (1,) if known == [0, 1] else tuple(known)


def row(
  name: str, file: str, out: Any, info: DataInfo, volume: Volume | None, single: bool
) -> dict[str, Any]:
  """The values of JSON's types of an image, or of a whole volume.

  out: Outputs of an image [H, W], or with a volume's axes [X, Y, Z]. Areas are numbers of pixels.
  Entropy and mutual information are in nats; of a `single` answer the latter is None. So is nan.
  """
  shape = out.mask.shape
  counts = np.bincount(out.mask.ravel(), minlength=info.num_classes).tolist()
  size = shape[::-1] if volume is None else shape
  mutual = None if single else float(out.mutual_information.mean(dtype=np.float64))
  dice = pairwise_dice(out.samples, out.weights, compared_classes(info))
  return {
    'image': name,
    'file': file,
    'size': 'x'.join(map(str, size)),
    'spacing_mm': '' if volume is None else 'x'.join(f'{s:.6g}' for s in volume.spacing),
    'areas': dict(zip(class_names(info), counts, strict=True)),
    'mean_entropy': float(out.entropy.mean(dtype=np.float64)),
    'max_entropy': float(out.entropy.max()),
    'mean_mutual_information': mutual,
    'pairwise_dice': None if np.isnan(dice) else dice,
  }


def pairwise_dice(samples: np.ndarray, weights: np.ndarray, classes: Sequence[int]) -> float:
  """Mean Dice of two different samples [N, ..], by their weights [N], and over classes.

  A class that neither has counts 1. nan with one sample. As stochastic.pairwise_dice, for volumes
  of any size and any N: pairs of GROUP samples with GROUP others at a time.
  """
  flat, weights = samples.reshape(len(samples), -1), np.asarray(weights, np.float64)
  groups = [slice(k, k + GROUP) for k in range(0, len(flat), GROUP)]
  alike = whole = 0.0
  for i, j in itertools.combinations_with_replacement(groups, 2):
    pairs = np.outer(weights[i], weights[j])
    pairs *= 1 - np.eye(len(pairs)) if i == j else 2  # those of two groups, in either order
    dice = sum(_dice(flat[i], flat[j], c) for c in classes) / len(classes)
    alike, whole = alike + (dice * pairs).sum(), whole + pairs.sum()
  return float(alike / whole) if whole else float('nan')


def _dice(a: np.ndarray, b: np.ndarray, c: int) -> np.ndarray:
  """Of a class, of each of the samples a [M, P] with each of b [N, P] -> [M, N]."""
  shared, total = np.zeros((2, len(a), len(b)))
  width = max(1, BLOCK // len(a))
  for start in range(0, a.shape[1], width):
    x, y = ((of[:, start : start + width] == c).astype(np.float32) for of in (a, b))
    shared += x @ y.T  # whole numbers to 2^24 are exact
    total += x.sum(1, np.float64)[:, None] + y.sum(1, np.float64)
  return np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)


def as_csv(rows: Sequence[Mapping[str, Any]], info: DataInfo) -> str:
  """predictions.csv"""
  names, about = class_names(info), ('image', 'file', 'size', 'spacing_mm')
  head = [*about, *(AREA + n for n in names), *SCORES]
  lines = ([*(r[k] for k in about), *r['areas'].values(), *(r[k] for k in SCORES)] for r in rows)
  return csv(head, lines)
