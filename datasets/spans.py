"""--range: which values of a picture of more than 8 bits become black and which white."""

import dataclasses
import pathlib
import re

import numpy as np

from car_jax.errors import UserError

MEND = '--range LOW,HIGH says what is black and white, --range 0.5%,99.5% the same by image'
NUMBER = r'[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?'


class Unknown(UserError):
  """Values of more than 8 bits of which nobody has said what is black and what white."""


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

  span: None where the builder has no such option. Raises UserError, by path: nan; Unknown: no span.
  """
  bad = int((~np.isfinite(values)).sum())
  if bad:
    raise UserError(f'{path}: {bad:,} of its values are nan or infinite')
  if span is None or span.low is None or span.high is None:
    bits, kind = values.dtype.itemsize * 8, values.dtype
    mend = 'rescale it to 8 bits, the range is yours' if span is None else MEND
    raise Unknown(
      f'{path}: more than 8 bits per channel ({bits}: {kind} from {values.min():g} to '
      f'{values.max():g})\n  {mend}'
    )
  low, high = span.low, span.high
  if span.percent:
    low, high = np.percentile(values, [low, high])
  scaled = (values.astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
  return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
