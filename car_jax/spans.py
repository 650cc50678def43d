"""What is seen of a picture of any depth, in 8 bits; --range: what becomes black and what white."""

import dataclasses
import pathlib
import re

import numpy as np

from car_jax import pictures
from car_jax.errors import UserError
from car_jax.problems import Problems

MEND = (
  '--range=LOW,HIGH says what is black and white, --range=0.5%,99.5% the same by image; '
  'in Python range=(LOW, HIGH)'
)
NUMBER = r'[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?'


@dataclasses.dataclass(frozen=True)
class Span:
  """From low to high: values of the file or, if `percent`, percentiles of each image's own values.

  Percentiles are over all pixels and channels of one image at once, so that colours stay. low and
  high are None where nothing was chosen.
  """

  low: float | None = None
  high: float | None = None
  percent: bool = False

  def __str__(self) -> str:
    sign = '%' if self.percent else ''
    return f'{self.low:g}{sign},{self.high:g}{sign}' if self.low is not None else ''


def parse(text: str) -> Span:
  """'LOW,HIGH' or 'P1%,P99%'; '' for none. Raises UserError."""
  if not text:
    return Span()
  match = re.fullmatch(rf'\s*({NUMBER})(%?)\s*,\s*({NUMBER})(%?)\s*', text, re.ASCII)
  if match and match[2] == match[4]:
    low, high, percent = float(match[1]), float(match[3]), bool(match[2])
    if low < high and not (percent and (low < 0 or high > 100)):
      return Span(low, high, percent)
  raise UserError(
    f'--range cannot be {text!r}\n  expected LOW,HIGH, the first less than the second, such as '
    '0,4095; or percentiles such as 0.5%,99.5%, from 0% to 100%\n'
    '  before a negative number write =: --range=-1000,400'
  )


def to_bytes(path: pathlib.Path | str, values: np.ndarray, span: Span | None) -> np.ndarray:
  """Values of any depth as uint8 0 to 255, rounded; what lies beyond the span is cut to it.

  span: None where the builder has no such option. Raises UserError, by path: nan, no span.
  """
  bad = int((~np.isfinite(values)).sum())
  if bad:
    raise UserError(f'{path}: {bad:,} of its values are nan or infinite')
  if span is None or span.low is None or span.high is None:
    bits, kind = values.dtype.itemsize * 8, values.dtype
    mend = 'rescale it to 8 bits, the range is yours' if span is None else MEND
    raise UserError(
      f'{path}: more than 8 bits per channel ({bits}: {kind} from {values.min():g} to '
      f'{values.max():g})\n  {mend}'
    )
  low, high = span.low, span.high
  if span.percent:
    low, high = np.percentile(values, [low, high])
  scaled = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
  return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def shown_bytes(
  path: pathlib.Path,
  picture: pictures.Picture,
  problems: Problems,
  colour: bool = False,
  span: Span | None = None,
) -> np.ndarray:
  """What is seen of a decoded picture: uint8 [H, W, 3] if `colour`, else [H, W, 1].

  More than 8 bits are brought to 8, transparent pixels have the colour below; both are noted.
  Raises UserError as `to_bytes`.
  """
  values = picture.shown
  if picture.deep:
    values = to_bytes(path, values, span)
    problems.note(path, f'image of {values_kind(picture)}, brought to 8 by --range {span}')
  if picture.alpha is not None and not opaque(picture.alpha):
    problems.note(path, 'image with transparent pixels, taken with the colours that they have')
  return channels(values, colour)


def values_kind(picture: pictures.Picture) -> str:
  return f'{picture.values.dtype.itemsize * 8} bits ({picture.values.dtype})'


def opaque(alpha: np.ndarray) -> bool:
  """Whether transparency says nothing: every pixel is wholly there."""
  most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in 'iu' else 1
  return bool((alpha == most).all())


def channels(values: np.ndarray, colour: bool) -> np.ndarray:
  """[H, W] or [H, W, 3], bytes or bits -> uint8 [H, W, 3] if `colour`, else [H, W, 1] as Pillow."""
  from PIL import Image

  if values.dtype == bool:
    values = np.uint8(255) * values
  if values.ndim == 2:
    return np.repeat(values[..., None], 3, 2) if colour else values[..., None]
  return values if colour else np.asarray(Image.fromarray(values).convert('L'))[..., None]
