"""Scores of segmentations, of their probabilities, and of what they do not know.

Functions of arrays and, beside them, classes that are `clu.metrics.Metric` for training loops, see
docs/notebook.md. The modules of this package hold the kernels that both are made of.
"""

import importlib
from typing import Any

HOMES = {
  'functional.sets': ('ged', 'hm_iou', 'dice_max', 'dice_match', 'crps_area', 'diversity'),
  'functional.probabilities': ('ece', 'adaptive_ece', 'ks_error', 'nll', 'brier', 'dice_soft'),
  'functional.rankings': ('auroc', 'aupr', 'average_precision', 'fpr95', 'prr', 'aurc', 'augrc'),
  'functional.label_maps': ('confusion', 'iou', 'miou'),
  'clu_metrics.of_images': (
    *('GED', 'HMIoU', 'DiceMax', 'DiceMatch', 'CRPSArea', 'Diversity'),
    *('NLL', 'Brier', 'DiceSoft'),
  ),
  'clu_metrics.of_pixels': (
    *('ECE', 'AdaptiveECE', 'KSError', 'Confusion', 'MeanIoU'),
    *('AUROC', 'AUPR', 'AveragePrecision', 'FPR95', 'PRR', 'AURC', 'AUGRC'),
  ),
}
"""Where a public name is: it is imported when it is used, so that a process which loads data and
imports `car_jax.metrics.flips` needs neither scipy nor clu."""
__all__ = [name for names in HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
  for home, names in HOMES.items():
    if name in names:
      globals()[name] = value = vars(importlib.import_module(f'{__name__}.{home}'))[name]
      return value
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
