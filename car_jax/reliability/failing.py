"""Does a model know on which images it fails? Risk over coverage, see metrics/of_images.py."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from car_jax.metrics import selective
from car_jax.metrics.of_images import Images, OfImages
from car_jax.reliability.study import PLAIN, Cell
from car_jax.reliability.view import View, mean, number

POINTS = 101  # of a curve
HALF = 0.5  # of the images, in the finding


def of_study(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
  """An entry of study.json for each model and set, before recalibration: the mean risk of the
  images that are kept over their share, the surest first, by the first confidence asked for."""
  for c in cells:
    if c.calibrator != PLAIN or not (scored := _scored(c)):
      continue
    confidence, total = next(iter(scored.items()))
    known = total.known(confidence)
    if not known.any():
      continue
    risk = total.risk[known]
    curve = selective.curve(total.confidences[confidence][known], risk)
    best = selective.best_curve(risk).selective_risk[curve.accepted.astype(int) - 1]
    shown = np.unique(np.linspace(0, len(best) - 1, POINTS).round().astype(int))
    yield dict(
      model=c.model,
      set=c.set,
      confidence=confidence,
      coverage=curve.coverage[shown],
      risk=curve.selective_risk[shown],
      best=best[shown],
    )


def remarks(cells: Iterable[Cell]) -> Iterator[str]:
  """How many images have no risk, or no such confidence."""
  for c in cells:
    for confidence, total in _scored(c).items() if c.calibrator == PLAIN else ():
      if skipped := int(np.sum(~total.known(confidence))):
        yield (
          f'{c.model} on {c.set}: {skipped:,} of {len(c.counts.ids):,} images have no risk or no '
          f'confidence {confidence}: scores of failing images leave them out.'
        )


def finding(view: View) -> str:
  """What rejecting the less sure half of the images is worth."""
  parts = []
  for dataset in dict.fromkeys(filter(None, (view.reference, view.strongest))):
    of = [e for e in view.study.get('failing') or [] if e['set'] == dataset]
    every, kept = mean(map(_last, of)), mean(map(_of_half, of))
    if of:
      parts.append(f'from {100 * every:.1f} to {100 * kept:.1f} % on {dataset}')
  if not parts:
    return ''
  return (
    'Does it know which images fail? Without the less sure half of the images, one minus Dice goes '
    f'{" and ".join(parts)} (mean over models).'
  )


def _scored(c: Cell) -> dict[str, Images]:
  """What the cell has of images, by confidence."""
  of = (m for m in c.metrics.values() if isinstance(m, OfImages) and c.counts.has(m))
  return {m.confidence: c.counts.total(m.source) for m in of}


def _last(entry: dict[str, Any]) -> float:
  return number(entry['risk'][-1])


def _of_half(entry: dict[str, Any]) -> float:
  return float(np.interp(HALF, entry['coverage'], entry['risk']))
