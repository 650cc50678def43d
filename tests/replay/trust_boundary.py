"""Borders: IoU, F, calibration near them; and labels that hold at once, against the record."""

import jax
import numpy as np

from car_jax.metrics import border_calibration, boundary, calibration, confidence_groups, multilabel
from tests.replay import Replay, replays


@replays('trust', 'boundary')
def overlaps(r: Replay) -> None:
  labels, said = r['label'], r['prediction'].astype(int)
  classes = r['probs_100ths'].shape[1]
  pairs = list(zip(said, labels, strict=True))
  counted = lambda **kw: np.stack([boundary.iou_counts(*p, classes, **kw) for p in pairs])
  for key in [k for k in r.arrays if k.startswith('boundary_iou/') and k.endswith('/width')]:
    at = key.removesuffix('/width')
    share = float(at.rpartition('/')[2])
    found = counted(share=share, void=None)
    r.check(key, boundary.width(labels.shape[1:], share), 0)
    r.check(f'{at}/per_image', boundary.iou(found), 1e-12)
    r.check(f'{at}/intersection', found[..., 0], 0)
    r.check(f'{at}/union', found[..., 1], 0)
    r.check(f'{at}/pooled', boundary.iou(found.sum(0)), 1e-12)
    if (cut := f'spec/boundary_iou/void_cut_first/{share:g}') in r:
      r.check(cut, boundary.iou(counted(share=share)), 1e-12)
  for key in [k for k in r.arrays if 'boundary_iou/mask_' in k]:
    image, c = place(key)
    band = boundary.inner_band(labels[image] == c, boundary.width(labels.shape[1:]))
    r.check(key, band, 0)


def place(key: str) -> tuple[int, int]:
  """'.._image1_class2' -> 1, 2"""
  image, c = key.rpartition('image')[2].split('_class')
  return int(image), int(c)


@replays('trust', 'boundary')
def borders(r: Replay) -> None:
  labels, said = r['label'], r['prediction'].astype(int)
  classes = r['probs_100ths'].shape[1]
  for key in [k for k in r.arrays if k.startswith('boundary_f/') and k.endswith('/radius')]:
    at = key.removesuffix('/radius')
    tolerance = float(at.rpartition('/')[2])
    r.check(key, boundary.radius(labels.shape[1:], tolerance), 0)
    for name, void in ((at, None), (f'{at}/void', 255)):
      found = [
        boundary.class_boundary_f(p, y, classes, tolerance=tolerance, void=void)
        for p, y in zip(said, labels, strict=True)
      ]
      r.check(name, found, 1e-12)
  for key in [k for k in r.arrays if 'boundary_f/map_' in k]:
    image, c = place(key)
    r.check(key, boundary.border_map(labels[image] == c), 0)


@replays('trust', 'boundary')
def near_borders(r: Replay) -> None:
  labels, probs = r['label'], np.moveaxis(r['probs_100ths'], 1, -1) / 100.0
  far = np.stack([border_calibration.distance(y) for y in labels])
  there = np.where(np.isfinite(far), far, -1)
  r.check('spec/border_distance', there.astype(np.float32), 1e-12)
  r.check('spec/border_band_edges', border_calibration.EDGES, 0)
  sums = border_calibration.band_sums(probs, labels, far)
  found = border_calibration.band_scores(sums)
  for i in range(len(found.pixels)):
    for name, values in vars(found).items():
      r.check(f'spec/border_band{i}/{"ece15" if name == "ece" else name}', values[i], 1e-9)
  seen = labels != 255
  hits = (probs.argmax(-1) == labels)[seen]
  groups = confidence_groups.tied(probs.max(-1)[seen], hits)
  r.check('spec/ece15_all', calibration.ece(confidence_groups.binned(groups)), 1e-9)
  for key in [k for k in r.arrays if 'torchmetrics/multiclass_ece/' in k]:
    bins = confidence_groups.binned(groups, int(key.rpartition('/')[2]), closed='left')
    r.check(key, calibration.ece(bins), 1e-5)
    rounded = bins._replace(conf=float32_sums(probs.max(-1)[seen], len(bins.pixels) - 1))
    r.check(key.replace('_ece', '_mce'), calibration.mce(rounded), 1e-5)


def float32_sums(conf: np.ndarray, bins: int) -> np.ndarray:
  """Summed confidence by bin as torchmetrics has it: one float32 added after another."""
  k = confidence_groups.bin_of(conf, bins, 'left')
  out = np.zeros(bins + 1, np.float32)
  np.add.at(out, k, conf.astype(np.float32))
  return out


@replays('trust', 'boundary')
def labels_at_once(r: Replay) -> None:
  truth, p = (np.moveaxis(r[f'multilabel/{k}'], 1, -1) for k in ('truth', 'scores_100ths'))
  p, truth, seen = p / 100.0, truth == 1, ~r['multilabel/ignored']
  with jax.enable_x64(True):
    found = multilabel.label_scores(multilabel.label_sums(p, truth, seen[..., None]))
  for c in range(p.shape[-1]):
    at = f'spec/multilabel/class{c}'
    r.check(f'{at}/ece15', found.ece[c], 1e-9)
    r.check(f'{at}/ece15_of_decision', found.ece_of_decision[c], 1e-9)
    r.check(f'{at}/brier', found.brier[c], 1e-9)
    r.check(f'{at}/nll', found.nll[c], 1e-9)
    groups = confidence_groups.tied(p[..., c][seen], truth[..., c][seen])
    for bins in [k.rpartition('/')[2] for k in r.arrays if f'binary_ece/class{c}/' in k]:
      ece = calibration.ece(confidence_groups.binned(groups, int(bins), closed='left'))
      r.check(f'torchmetrics/binary_ece/class{c}/{bins}', ece, 1e-5)
    ace = calibration.average_gap(confidence_groups.binned(groups, 20))
    r.check(f'values/ace/class{c}', ace, 1e-9)
  r.check('spec/multilabel/mean_ece15', found.mean_ece, 1e-9)
