"""A made-up study with plausible numbers: what the page and the tables are tested on."""

import numpy as np

from car_jax.metrics.texts import ABOUT
from car_jax.reliability.view import Metric
from car_jax.report import rendering

SETS = (
  ('Cityscapes val', 'in-domain', 'clear', 0.0),
  ('fog 0.3', 'shifted', 'fog', 0.3),
  ('fog 1.0', 'shifted', 'fog', 1.0),
  ('night 0.5', 'shifted', 'night', 0.5),
  ('night 1.0', 'shifted', 'night', 1.0),
  ('IDD', 'shifted', 'India', None),
)
CALIBRATORS = (
  ('none', 'the softmax of the logits as they are'),
  ('temperature', 'one temperature, least NLL on held-out images'),
  ('clusters', 'eight temperatures, by nearest cluster of image features'),
  ('local', 'a small net that gives every pixel its temperature'),
)
CLASSES = ('road', 'sidewalk', 'building', 'sky', 'person', 'car', 'bicycle')
FAILING = ('image_aurc', 'image_aurc[soft_dice]', 'failure_auroc[risk=0.3]')
MODELS = ('SegFormer-B0', 'SETR-PUP', 'DeepLabV3+ R50')


def study(models=3, sets=6, calibrators=4, *, seed=0, points=21):
  """The plain dict of study.json; more of anything than is named above gets numbered names."""
  rng = np.random.default_rng(seed)
  names = [*MODELS, *(f'model {k}' for k in range(3, models))][:models]
  datasets = [*SETS, *((f'rain {k}', 'shifted', f'rain {k}', 0.4) for k in range(6, sets))][:sets]
  ways = [*CALIBRATORS, *((f'way {k}', '') for k in range(4, calibrators))][:calibrators]
  out = {
    'title': 'Reliability of segmenters under <shift> & night',
    'created': '2024-05-01 12:00',
    'command': 'python reliability.py --config configs/study.py --out runs/study',
    'seconds': 1234.0,
    'versions': {'car_jax': '0.1.0', 'jax': '0.4.30', 'device': '1 x cpu'},
    'notes': ['20,000 pixels of each image were drawn; the same ones for every model.'],
    'classes': list(CLASSES),
    'models': [{'name': n, 'about': f'weights {k}'} for k, n in enumerate(names)],
    'sets': [
      dict(name=n, about=f'{c} images', role=r, condition=c, shift=s, images=100, pixels=2_000_000)
      for n, r, c, s in datasets
    ],
    'calibrators': [{'name': n, 'about': a} for n, a in ways],
    'metrics': [m._asdict() for m in map(Metric.of, (*ABOUT, *FAILING))],
  }
  out['cells'], out['curves'] = [], []
  for i, model in enumerate(names):
    for name, _, _, shift in datasets:
      for k, (way, _) in enumerate(ways):
        hard = 0.8 if shift is None else shift
        out['cells'].append(_cell(rng, model, name, way, i, hard, k))
        out['curves'].append(_curve(rng, model, name, way, hard, k, points))
  out['fits'] = [
    _fit(m, w, i, k) for i, m in enumerate(names) for k, (w, _) in enumerate(ways) if k
  ]
  out['image_ood'] = [
    dict(
      model=m, calibrator=w, known=datasets[0][0], other=datasets[-1][0], score='mean max prob',
      auroc=0.8 - 0.05 * (i % 5) + 0.02 * k, aupr=0.7 - 0.04 * (i % 5), fpr95=0.5 + 0.05 * (i % 5),
    )
    for i, m in enumerate(names) for k, (w, _) in enumerate(ways)
  ]  # fmt: skip
  out['guarantees'] = [
    dict(name='missed 10', loss='miscoverage', alpha=0.1, classes=[], about='pixels outside sets')
  ]
  out['guarantee_results'] = [
    _guarantee(m, n, w, i, 0.8 if s is None else s)
    for i, m in enumerate(names) for n, _, _, s in datasets for w, _ in ways
  ]  # fmt: skip
  out['failing'] = [
    _failing(m, s, i, k) for i, m in enumerate(names) for k, (s, *_) in enumerate(datasets)
  ]
  out['worst'] = [_worst(m, datasets[-1][0], i, j) for i, m in enumerate(names) for j in range(2)]
  return out


def _cell(rng, model, dataset, way, i, hard, k):
  i = i % 5 + 0.1 * (i // 5)
  miou = 0.78 - 0.03 * i - 0.4 * hard + 0.05 * i * hard
  gain = (1, 0.45, 0.4, 0.3)[k % 4]
  ece = gain * (0.02 + 0.005 * i) + hard * (0.12 + 0.02 * i) * (0.5 + 0.5 * gain)
  auroc = 0.93 - 0.1 * hard - 0.01 * i + 0.004 * k
  values = {
    'miou': miou, 'pixel_accuracy': 0.96 - 0.2 * hard, 'ece': ece, 'adaptive_ece': ece * 0.99,
    'ks': ece * 0.97, 'mce': min(0.9, ece * 2.5), 'nll': 0.15 + 1.1 * hard * gain,
    'brier': 0.07 + 0.35 * hard, 'auroc': auroc, 'aupr_error': 0.4 + 0.2 * hard,
    'image_aurc': 0.2 + 0.3 * hard + 0.01 * i,
    'image_aurc[soft_dice]': 0.18 + 0.3 * hard + 0.01 * i,
    'failure_auroc[risk=0.3]': 0.9 - 0.2 * hard - 0.01 * i,
    'fpr95': 0.3 + 0.3 * hard, 'prr': 0.75 - 0.15 * hard, 'aurc': 0.01 + 0.1 * hard,
  }  # fmt: skip
  if dataset == 'IDD':
    values |= {'unknown_auroc': 0.72 + 0.02 * k, 'unknown_aupr': 0.2, 'unknown_fpr95': 0.7}
  iou = np.clip(miou + np.linspace(0.18, -0.2, len(CLASSES)) + rng.normal(0, 0.02, 7), 0, 1)
  iou = [*map(float, iou[:-1]), None if dataset == 'night 1.0' else float(iou[-1])]
  return {
    'model': model,
    'set': dataset,
    'calibrator': way,
    'values': {
      m: dict(value=v, low=v * 0.96, high=v * 1.03, bound=1e-4 if 'auroc' in m else 0.0)
      for m, v in values.items()
    }
    | {'disagreement_auroc': None},
    'iou': iou,
    'scenes': {s: {'miou': miou + d, 'ece': ece - d / 10} for s, d in (('a', 0.03), ('b', -0.04))},
  }


def _curve(rng, model, dataset, way, hard, k, points):
  confidence = (np.arange(15) + 0.6) / 15
  over = (0.03 + 0.2 * hard) * (1, 0.5, 0.45, 0.4)[k % 4]
  pixels = np.round(2e6 * np.exp(-0.5 * np.arange(15)[::-1]))
  pixels[0] = 0
  empty = lambda x: [None if n == 0 else float(v) for v, n in zip(x, pixels, strict=True)]
  x = np.linspace(0, 1, points)
  error = 0.05 + 0.2 * hard
  bend = lambda p: dict(fpr=x.tolist(), tpr=(x**p).tolist())
  return {
    'model': model,
    'set': dataset,
    'calibrator': way,
    'reliability': {
      'confidence': empty(confidence),
      'frequency': empty(np.clip(confidence - over * confidence, 0, 1)),
      'pixels': pixels.tolist(),
    },
    'rejection': {
      'rejected': x.tolist(),
      'risk': [*(error * (1 - x[:-1]) ** (2 + 0.2 * k)).tolist(), None],
      'best': [*(np.maximum(0, error - x[:-1]) / (1 - x[:-1])).tolist(), None],
    },
    'roc': {
      'misclassification': bend(0.12 + 0.1 * hard - 0.01 * k),
      'unknown': bend(0.4 - 0.02 * k) if dataset == 'IDD' else None,
    },
  }


def _fit(model, way, i, k):
  warnings = ['the best temperature 0.50 is at the edge of the grid'] if (i, k) == (1, 1) else []
  return dict(
    model=model, calibrator=way, set='Cityscapes train held out', warnings=warnings,
    temperatures=[1.4 + 0.1 * i] if k != 2 else [1.0 + 0.15 * j for j in range(8)],
    nll_before=0.2, nll_after=0.16, ece_before=0.03, ece_after=None if k == 3 else 0.01,
  )  # fmt: skip


def _guarantee(model, dataset, way, i, hard):
  loss = 0.09 + (0.3 + 0.01 * i) * hard
  low, high = loss - 0.05, loss + 0.05
  verdict = 'holds' if loss <= 0.1 else 'broken' if low > 0.1 else 'undecided'
  return dict(
    model=model, set=dataset, calibrator=way, guarantee='missed 10', threshold=0.25,
    everything=False, calibration=dict(images=60, left_out=0, loss=0.085), size=1.3 + hard,
    loss=dict(value=loss, low=low, high=high), images=100, skipped=0, above=0.4, gap=0.05,
    verdict=verdict,
  )  # fmt: skip


def _failing(model, dataset, i, k):
  kept = np.linspace(0.05, 1, 20)
  risk = (0.1 + 0.05 * k + 0.01 * i) * (0.4 + 0.6 * kept)
  lists = dict(coverage=kept.tolist(), risk=risk.tolist(), best=(risk * kept).tolist())
  return dict(model=model, set=dataset, confidence='mean') | lists


def _worst(model, dataset, i, j):
  names = {k: f'{i}-{j}-{k}.png' for k in ('image', 'label', 'prediction', 'error', 'uncertainty')}
  return dict(
    model=model, set=dataset, id=f'scene_{i}/{j:04d}', why='lowest mIoU of the set',
    values={'miou': 0.11 + 0.05 * j, 'ece': 0.4}, pictures=names,
  )  # fmt: skip


def images(study):
  """Name -> PNG bytes of every picture that the study names."""
  out, grid = {}, np.indices((24, 40)).sum(0)
  for n, entry in enumerate(study['worst']):
    for k, name in enumerate(entry['pictures'].values()):
      values = 0.5 + 0.5 * np.sin(grid / (3 + k) + n)
      out[name] = rendering.png(rendering.heat(values if k > 2 else np.round(values)))
  return out
