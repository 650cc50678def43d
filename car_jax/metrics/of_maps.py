"""Scores for which the host looks at whole maps, made from their names: components and borders.

'component_f1[entropy,seg=500,ins=100,at=0.3]', 'boundary_iou[width=0.01,images]', 'ece_near[0-2]'.
"""

import itertools
import math
from typing import Any

from car_jax.errors import UserError, nearest
from car_jax.metrics import of_borders, of_components
from car_jax.metrics.base import Metric
from car_jax.metrics.of_borders import ENDS, WIDTH, Bands, Boundaries, NearBorders, OfBoundaries
from car_jax.metrics.of_components import ComponentCounts, OfComponents
from car_jax.metrics.pixel_counts import ORDER

_BANDS = {f'{a:g}-{b:g}': (a, b) for a, b in itertools.combinations(ENDS, 2)}
OPTIONS: dict[str, tuple[str, ...]] = {
  **dict.fromkeys(of_components.ABOUT, (*ORDER, 'seg=', 'ins=', 'at=')),
  of_borders.IOU: ('width=', 'images'),
  of_borders.F: ('width=',),
  of_borders.NEAR: (*_BANDS,),
}


def made(
  name: str,
  *,
  classes: int,
  ignore: int | None,
  bins: int,
  absent: tuple[int, ...],
  all_modes: bool,
) -> Metric:
  """Raises UserError for an unknown option or an impossible value."""
  kind, _, text = name.removesuffix(']').partition('[')
  chosen: dict[str, Any] = {}
  for option in filter(None, (o.strip() for o in text.split(','))):
    chosen |= _option(option, name, kind)
  common: dict[str, Any] = dict(name=name, absent=absent, all_modes=all_modes)
  if kind == of_borders.NEAR:
    first, last = chosen.get('band', _BANDS['0-2'])
    return NearBorders(bands=Bands(bins, classes, ignore), first=first, last=last, **common)
  if kind in WIDTH:
    borders = Boundaries(kind, chosen.get('width', WIDTH[kind]), classes, ignore)
    return OfBoundaries(boundaries=borders, by_image='images' in chosen, **common)
  score, at = chosen.get('score', ORDER[0]), chosen.get('at')
  if at is not None and not 0 <= at <= 1 and score not in of_components.UNBOUNDED:
    raise UserError(f'at={at:g} in {name!r}\n  an uncertainty by {score} is from 0 to 1')
  predicted, true = (
    chosen.get('seg', of_components.PREDICTED),
    chosen.get('ins', of_components.TRUE),
  )
  counts = ComponentCounts(score, at, predicted, true, ignore)
  return OfComponents(kind=kind, counts=counts, **common)


def _option(option: str, name: str, kind: str) -> dict[str, Any]:
  key, equals, value = option.partition('=')
  if key + equals not in OPTIONS[kind]:
    raise UserError(f'unknown option {option!r} in {name!r}\n{nearest(option, OPTIONS[kind])}')
  if key in _BANDS:
    return {'band': _BANDS[key]}
  if key in ORDER:
    return {'score': key}
  if key == 'images':
    return {key: True}
  if key in ('seg', 'ins'):
    if not value.isdigit():
      raise UserError(f'{option!r} in {name!r}: {key} is a whole number of pixels')
    return {key: int(value)}
  try:
    number = float(value)
  except ValueError:
    number = math.nan
  if not math.isfinite(number) or (key == 'width' and number <= 0):
    what = 'a share of the diagonal, or pixels from 1 on' if key == 'width' else 'an uncertainty'
    raise UserError(f'{option!r} in {name!r}: {key} is {what}')
  return {key: number}
