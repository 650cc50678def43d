"""The page of CAR's toy study and its figures, see studies/toy_regression.py.

W weights of the calibration loss (1, then 0), R runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.evaluate import pictures
from car_jax.report.figure import Axis, Figure, Point, Series, Style, of_values
from car_jax.report.page import render
from car_jax.report.table import Table

STYLES = {'1': Style('s0'), '0': Style('s1', dash='7 4')}
NAMES = {'1': 'with calibration loss (weight 1)', '0': 'without (weight 0)'}
MEAN = Style('ink', width=2)
X, Y = Axis('x', 0, 1), Axis('y', -0.6, 0.6)


def page(tables: Sequence[Table], numbers: Mapping[str, Any], curves: Sequence[Figure]) -> str:
  """The whole document. numbers: of `toy_runs.portrait`, {} without figure 1."""
  return render(
    'toy.html.j2',
    kicker='CAR in one dimension',
    title='Two branches, with and without the calibration loss',
    tables=tables,
    portraits=portraits(numbers) if numbers else {},
    curves=curves,
  )


def portraits(numbers: Mapping[str, Any]) -> dict[str, list[Figure]]:
  """By run: the data with F, then with each weight G's draws and their mean over D's opinion."""
  out = {}
  for r, seed in enumerate(numbers['seeds']):
    f = Series('F', MEAN, _inside(numbers['x'], numbers['f'][r]))
    bins = [np.linspace(0, 1, 81), np.linspace(-0.6, 0.6, 97)]
    density, *_ = np.histogram2d(numbers['data_x'], numbers['data_y'], bins)
    figures = [_panel('data and calibration net', [f], np.log1p(density.T))]
    for w, name in enumerate(NAMES.values()):
      mean = _inside(numbers['mean_x'], numbers['sample_mean'][w, r])
      draw = _inside(numbers['x'], numbers['sample'][w, r])
      dots = Style('ink', 'circle', hollow=True)
      series = [
        Series('one draw', dots, draw, line=False),
        f,
        Series('mean of 1000 draws', Style('s0'), mean),
      ]
      figures.append(_panel(name, series, numbers['judged'][w, r]))
    out[f'seed {seed}'] = figures
  return out


def _inside(x: np.ndarray, y: np.ndarray) -> tuple[Point, ...]:
  """Without the points beyond the picture; a net that diverged has some."""
  return tuple(p for p in of_values(x, y) if Y.low <= p.y <= Y.high)


def _panel(title: str, series: Sequence[Series], behind: np.ndarray) -> Figure:
  """behind: [y, x], drawn from dark (least) to bright (most)."""
  scaled = (behind - behind.min()) / (np.ptp(behind) or 1)
  picture = pictures.png(pictures.heat(scaled[::-1]))
  return Figure(title, X, Y, tuple(series), background=picture, size=(340, 300))


def likelihood(medians: Mapping[str, Any]) -> list[Figure]:
  """Median and quartiles of the exact log likelihood over training, and the end of it once more."""
  last, title = medians['step'][-1], f'median and quartiles over {medians["runs"]} runs'
  end = _likelihood(medians, 'the last two fifths', 0.6 * last)
  return [_likelihood(medians, title, 0), end]


def _likelihood(medians: Mapping[str, Any], title: str, start: float) -> Figure:
  series = []
  for weight, of in medians['curves'].items():
    rows = zip(medians['step'], of['median'], of['low'], of['high'], strict=True)
    points = tuple(Point(*row) for row in rows if row[0] >= start)
    series.append(Series(NAMES[weight], STYLES[weight], points, band=True))
  x = Axis('adversarial step', start, medians['step'][-1])
  return Figure(title, x, Axis('log likelihood of a draw'), tuple(series))
