"""The few marks that the report's charts are made of, as SVG text.

Colours are CSS variables: `--s0`.. for subjects, `--ink`, `--muted`, `--grid`, `--paper`. A page
defines them (and with them its dark form); `standalone` adds them for a file of its own.
"""

import math
from collections.abc import Sequence
from html import escape

LIGHT = {
  'ink': '#1c2430',
  'muted': '#5b6675',
  'grid': '#dfe4ea',
  'paper': '#ffffff',
  's0': '#0b62c4',
  's1': '#c2540a',
  's2': '#18794e',
  's3': '#7c4dc4',
  's4': '#b8255f',
  's5': '#0d7680',
  's6': '#85650a',
  's7': '#6b3e26',
  's8': '#3d5a1e',
}
DARK = {
  'ink': '#e8ecf2',
  'muted': '#9eabbd',
  'grid': '#303a48',
  'paper': '#171c24',
  's0': '#69b1ff',
  's1': '#ff9f5a',
  's2': '#5ed4a0',
  's3': '#c4a5ff',
  's4': '#ff8ab5',
  's5': '#5ad1db',
  's6': '#e3c455',
  's7': '#d6a184',
  's8': '#a8cf7a',
}
SUBJECT_COLOURS = 9


def variables(colours: dict[str, str]) -> str:
  return ''.join(f'--{name}:{value};' for name, value in colours.items())


def subject_colour(index: int | None) -> str:
  """The colour of the index-th subject; None, the readers' floor, is drawn in ink."""
  return 'var(--ink)' if index is None else f'var(--s{index % SUBJECT_COLOURS})'


class Drawing:
  """An SVG under construction, in pixels of its view box. What has a place of nan is left out."""

  def __init__(self, width: float, height: float, title: str):
    self.width, self.height, self.title = width, height, title
    self.parts: list[str] = []

  def _add(self, mark: str, *places: float) -> None:
    if not any(map(math.isnan, places)):
      self.parts.append(mark)

  def line(self, x1, y1, x2, y2, colour='var(--grid)', width=1.0, dash='') -> None:
    extra = f' stroke-dasharray="{dash}"' if dash else ''
    self._add(
      f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
      f'style="stroke:{colour}" stroke-width="{width}" stroke-linecap="round"{extra}/>',
      *(x1, y1, x2, y2),
    )

  def path(self, points: Sequence[tuple[float, float]], colour, width=2.0, dash='') -> None:
    """A line through the points; a point with nan breaks it."""
    text, pen = '', 'M'
    for x, y in points:
      if math.isnan(x) or math.isnan(y):
        pen = 'M'
        continue
      text += f'{pen}{x:.1f} {y:.1f}'
      pen = 'L'
    extra = f' stroke-dasharray="{dash}"' if dash else ''
    self.parts.append(
      f'<path d="{text}" style="fill:none;stroke:{colour}" stroke-width="{width}" '
      f'stroke-linejoin="round" stroke-linecap="round"{extra}/>'
    )

  def rect(self, x, y, width, height, colour, opacity=1.0, tip='') -> None:
    self._add(
      f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0, width):.1f}" height="{max(0, height):.1f}" '
      f'style="fill:{colour}" opacity="{opacity}">{_tip(tip)}</rect>',
      *(x, y, width, height),
    )

  def dot(self, x, y, colour, radius=4.5, hollow=False, tip='') -> None:
    fill = 'var(--paper)' if hollow else colour
    self._add(
      f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" style="fill:{fill};stroke:{colour}" '
      f'stroke-width="2">{_tip(tip)}</circle>',
      *(x, y),
    )

  def diamond(self, x, y, colour, radius=6.0, tip='') -> None:
    r = radius
    self._add(
      f'<path d="M{x:.1f} {y - r:.1f}l{r} {r}l{-r} {r}l{-r} {-r}z" style="fill:{colour}">'
      f'{_tip(tip)}</path>',
      *(x, y),
    )

  def text(self, x, y, text, anchor='start', colour='var(--ink)', size=12, weight=400) -> None:
    self.parts.append(
      f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
      f'font-weight="{weight}" style="fill:{colour}">{escape(str(text))}</text>'
    )

  def x_axis(self, axis: 'Axis', top: float, bottom: float, name: str = '') -> None:
    """Vertical grid lines with their numbers below, and the axis' name under them."""
    for tick in axis.ticks:
      self.line(axis(tick), top, axis(tick), bottom)
      self.text(axis(tick), bottom + 15, axis.label(tick), 'middle', 'var(--muted)', 11)
    self.text((axis.start + axis.end) / 2, bottom + 32, name, 'middle', 'var(--muted)', 12)

  def y_axis(self, axis: 'Axis', left: float, right: float) -> None:
    """Horizontal grid lines with their numbers on the left."""
    for tick in axis.ticks:
      self.line(left, axis(tick), right, axis(tick))
      self.text(left - 6, axis(tick) + 4, axis.label(tick), 'end', 'var(--muted)', 11)

  def render(self) -> str:
    return (
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
      f'role="img" aria-label="{escape(self.title, quote=True)}" font-family="system-ui, '
      f'-apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">{"".join(self.parts)}</svg>'
    )


def _tip(text: str) -> str:
  return f'<title>{escape(text)}</title>' if text else ''


def standalone(drawing: str) -> str:
  """A rendered drawing with its colours and a background: a file that any viewer shows."""
  style = (
    f'<style>svg{{{variables(LIGHT)}background:var(--paper)}}'
    f'@media(prefers-color-scheme:dark){{svg{{{variables(DARK)}}}}}</style>'
  )
  head, rest = drawing.split('>', 1)
  return f'{head}>{style}{rest}\n'


class Axis:
  """Values lo..hi along pixels start..end, with round ticks."""

  def __init__(self, lo: float, hi: float, start: float, end: float, *, ticks: int = 5):
    if not hi > lo:
      lo, hi = lo - 0.5, lo + 0.5
    self.step = _round_step((hi - lo) / ticks)
    self.lo, self.hi, self.start, self.end = lo, hi, start, end
    first = math.ceil(lo / self.step - 1e-9)
    last = math.floor(hi / self.step + 1e-9)
    self.ticks = [k * self.step for k in range(first, last + 1)]

  def __call__(self, value: float) -> float:
    return self.start + (value - self.lo) / (self.hi - self.lo) * (self.end - self.start)

  def label(self, tick: float) -> str:
    digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
    return f'{tick:.{digits}f}'.replace('-', '−')


def _round_step(rough: float) -> float:
  scale = 10 ** math.floor(math.log10(rough))
  return next(m * scale for m in (1, 2, 5, 10) if m * scale >= rough * 0.999)
