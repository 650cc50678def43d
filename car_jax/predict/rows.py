"""What predictions.csv says of an image or a volume. Letters: N samples, C classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.data.sources import DataInfo
from car_jax.predict.volumes import Volume
from car_jax.report.table import csv

BLOCK = 1 << 20  # pixels compared at a time
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
  of any size.
  """
  n, flat = len(samples), samples.reshape(len(samples), -1)
  shared = np.zeros((len(classes), n, n))
  for start in range(0, flat.shape[1], BLOCK):
    block = flat[:, start : start + BLOCK]
    for k, c in enumerate(classes):
      mask = (block == c).astype(np.float32)  # whole numbers to 2^24 are exact
      shared[k] += mask @ mask.T
  area = np.einsum('kii->ki', shared)
  total = area[:, :, None] + area[:, None]
  dice = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0).mean(0)
  pairs = np.outer(weights, weights) * (1 - np.eye(n))
  return float((dice * pairs).sum() / pairs.sum()) if pairs.any() else float('nan')


def as_csv(rows: Sequence[Mapping[str, Any]], info: DataInfo) -> str:
  """predictions.csv"""
  names, about = class_names(info), ('image', 'file', 'size', 'spacing_mm')
  head = [*about, *(AREA + n for n in names), *SCORES]
  lines = ([*(r[k] for k in about), *r['areas'].values(), *(r[k] for k in SCORES)] for r in rows)
  return csv(head, lines)
