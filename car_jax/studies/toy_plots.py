"""The toy study's two figures. W weights of the calibration loss (1, then 0); see toy_runs.py."""

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps, colors
from matplotlib import pyplot as plt

matplotlib.use('Agg')

WITH, WITHOUT, MEAN = '#1f6fb2', '#d1661f', '#222222'
NAMES = {'1': 'with calibration loss (weight 1)', '0': 'without (weight 0)'}


def figure1(path: pathlib.Path, numbers: dict[str, np.ndarray]) -> None:
  """A row for each run: the data with F, then G's draws and their mean over D's opinion."""
  rows = len(numbers['f'])
  size: dict[str, Any] = dict(figsize=(10.5, 0.6 + 2.3 * rows), layout='constrained')
  fig, axes = plt.subplots(rows, 3, sharex=True, sharey=True, squeeze=False, **size)
  for r in range(rows):
    _data(axes[r, 0], numbers, r)
    for w, ax in enumerate(axes[r, 1:]):
      shown = _draws(ax, numbers, w, r)
  for ax, title in zip(axes[0], ('data and calibration net', *NAMES.values()), strict=True):
    ax.set(title=title, xlim=(0, 1), ylim=(-0.6, 0.6))
  for ax in axes[-1]:
    ax.set_xlabel('x')
  fig.legend(*axes[0, 1].get_legend_handles_labels(), loc='outside lower center', ncols=3)
  fig.colorbar(shown, ax=axes, label='D: probability of being real', pad=0.01)
  _save(fig, path, 85)


def _data(ax: Any, numbers: dict[str, np.ndarray], r: int) -> None:
  bins = [np.linspace(0, 1, 81), np.linspace(-0.6, 0.6, 97)]
  ax.hist2d(numbers['data_x'], numbers['data_y'], bins=bins, cmap='Greys', norm='log')
  ax.plot(numbers['x'], numbers['f'][r], color=MEAN, lw=2)
  ax.set_ylabel(f'seed {numbers["seeds"][r]}\ny')


def _draws(ax: Any, numbers: dict[str, np.ndarray], w: int, r: int) -> Any:
  """The panel of weight w and run r; returns what a colour bar needs."""
  background = dict(levels=np.linspace(0.2, 0.8, 13), extend='both', cmap=_pale())
  grid = numbers['grid_x'], numbers['grid_y']
  shown = ax.contourf(*grid, numbers['judged'][w, r], **background)
  ax.plot(numbers['x'], numbers['f'][r], color=MEAN, lw=2, label='F')
  mean = numbers['sample_mean'][w, r]
  ax.plot(numbers['mean_x'], mean, color=WITH, lw=1.6, label='mean of 1000 draws')
  dots = dict(s=8, color='white', edgecolor='black', lw=0.5, zorder=3)
  ax.scatter(numbers['x'], numbers['sample'][w, r], label='one draw', **dots)
  return shown


def _pale() -> Any:
  """Red to green, light enough for points on top."""
  strong = colormaps['RdYlGn'](np.linspace(0.05, 0.95, 14))[:, :3]
  return colors.ListedColormap(1 - 0.5 * (1 - strong))


def figure2(path: pathlib.Path, medians: dict[str, Any]) -> None:
  """Median and quartiles of the exact log likelihood over training."""
  fig, ax = plt.subplots(figsize=(7, 4.2), layout='constrained')
  for (weight, curve), colour in zip(medians['curves'].items(), (WITH, WITHOUT), strict=True):
    ax.fill_between(medians['step'], curve['low'], curve['high'], color=colour, alpha=0.2, lw=0)
    ax.plot(medians['step'], curve['median'], color=colour, lw=1.3, label=NAMES[weight])
  _zoom(ax, medians)
  ax.axhline(0, color='grey', lw=0.6, zorder=0)
  ax.set(
    xlabel='adversarial step',
    ylabel='log likelihood of a draw',
    xlim=(0, medians['step'][-1]),
    title=f'median and quartiles over {medians["runs"]} runs',
  )
  ax.legend(loc='lower right', frameon=False)
  _save(fig, path)


def _zoom(ax: Any, medians: dict[str, Any]) -> None:
  """The last two fifths again, where the curves are close."""
  last = medians['step'][-1]
  inset = ax.inset_axes((0.58, 0.3, 0.39, 0.38))
  for curve, colour in zip(medians['curves'].values(), (WITH, WITHOUT), strict=True):
    inset.fill_between(medians['step'], curve['low'], curve['high'], color=colour, alpha=0.2, lw=0)
    inset.plot(medians['step'], curve['median'], color=colour, lw=1)
  inset.set(xlim=(0.6 * last, last), ylim=(0, 2.5))
  inset.tick_params(labelsize=8)


def _save(fig: Any, path: pathlib.Path, dpi: int = 110) -> None:
  fig.savefig(path, dpi=dpi)
  plt.close(fig)
