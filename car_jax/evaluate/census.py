"""What the labels of a data set hold, and one line where that makes its scores mean little.

A class without any pixel, a large share of ignored pixels and ids of another convention leave every
score a number, so nothing else would tell.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from car_jax.data.labels import CLASS_NAMES, SCORED, scored_train_ids

LARGE = 0.3  # share of ignored pixels that is worth a line; Cityscapes has about a tenth
NAMED = 5  # classes at most
CITYSCAPES = CLASS_NAMES[:SCORED]


class Census(NamedTuple):
  """Pixels (or readers' votes) of each class [C], pixels that are ignored, and all pixels."""

  classes: np.ndarray
  ignored: float
  pixels: float


def remark(
  census: Census,
  names: Sequence[str],
  *,
  absent: Sequence[int | None] = (),
  ignore: int | None = None,
) -> str:
  """One line on what is unusual in the labels, '' where nothing is.

  names: of the classes. absent: classes that cannot occur, such as an ignored one among the others.
  ignore: the label of ignored pixels, to be named.
  """
  missing = [k for k in np.flatnonzero(np.asarray(census.classes) <= 0).tolist() if k not in absent]
  share = census.ignored / max(census.pixels, 1)
  label = 'an ignored label' if ignore is None else f'the ignored label {ignore}'
  parts = []
  if missing:
    shown = ', '.join(str(names[k]) for k in missing[:NAMED])
    more = f' and {len(missing) - NAMED} more' if len(missing) > NAMED else ''
    parts.append(
      f'{shown}{more} never occurs' if len(missing) == 1 else f'{shown}{more} never occur'
    )
  if share >= LARGE or (missing and len(names) == 2 and share > 0):
    parts.append(f'{100 * share:.0f} % of the pixels have {label}')
  if not parts:
    return ''
  return '; '.join(parts) + _guess(census, missing, names, share)


def _guess(census: Census, missing: Sequence[int], names: Sequence[str], share: float) -> str:
  """What may be the reason."""
  if len(names) == 2 and list(missing) == [1] and share > 0:
    return f': masks of 0 and 255? {names[1]} is 1 there, 255 counts nowhere'
  train_ids_mapped = {*scored_train_ids(np.arange(SCORED, dtype=np.uint8)).tolist()}
  there = {*np.flatnonzero(np.asarray(census.classes) > 0).tolist()}
  if tuple(names) == CITYSCAPES and share >= LARGE and there <= train_ids_mapped:
    return (
      ': train ids that were read as label ids? Only files called ..labelIds.png hold label ids'
    )
  return ''


def lines(remarks: Mapping[str, str]) -> list[str]:
  """Name of a data set -> its remark: a line for each different one, with the names it is of."""
  names: dict[str, list[str]] = {}
  for name, text in remarks.items():
    if text:
      names.setdefault(text, []).append(name)
  return [f'labels of {", ".join(of)}: {text}.' for text, of in names.items()]
