"""The toy study's two figures. W weights of the calibration loss (1, then 0); see toy_runs.py."""

import pathlib
from typing import Any

import numpy as np

WITH, WITHOUT, MEAN = '#1f6fb2', '#d1661f', '#222222'
NAMES = {'1': 'with calibration loss (weight 1)', '0': 'without (weight 0)'}


def figure1(path: pathlib.Path, numbers: dict[str, np.ndarray]) -> None:
  """The data with F, then G's draws and their mean over D's opinion, with and without."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot as plt

  fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout='constrained')
  bins = [np.linspace(0, 1, 81), np.linspace(-0.6, 0.6, 97)]
  axes[0].hist2d(numbers['data_x'], numbers['data_y'], bins=bins, cmap='Greys', norm='log')
  axes[0].plot(numbers['x'], numbers['f'], color=MEAN, lw=2, label='F')
  axes[0].set(title='data and calibration net', xlabel='x', ylabel='y', xlim=(0, 1))
  shown = None
  for ax, weight, sample, mean, judged in zip(
    axes[1:], NAMES, numbers['sample'], numbers['sample_mean'], numbers['judged'], strict=True
  ):
    shown = ax.pcolormesh(
      numbers['grid_x'],
      numbers['grid_y'],
      judged,
      cmap='RdYlGn',
      vmin=0,
      vmax=1,
      alpha=0.55,
      shading='gouraud',
    )
    ax.plot(numbers['x'], numbers['f'], color=MEAN, lw=2, label='F')
    ax.plot(numbers['mean_x'], mean, color=WITH, lw=2, ls='--', label='mean of 1000 draws')
    ax.scatter(
      numbers['x'],
      sample,
      s=9,
      color='white',
      edgecolor='black',
      lw=0.6,
      label='one draw',
      zorder=3,
    )
    ax.set(title=NAMES[weight], xlabel='x', xlim=(0, 1), ylim=(-0.6, 0.6))
  axes[0].legend(loc='lower left', frameon=False)
  axes[1].legend(loc='lower left', framealpha=0.8, fontsize=8)
  fig.colorbar(shown, ax=axes, label='D: probability of being real', pad=0.01)
  _save(fig, path)


def figure2(path: pathlib.Path, found: dict[str, Any]) -> None:
  """Median and quartiles of the exact log likelihood over training."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot as plt

  fig, ax = plt.subplots(figsize=(7, 4.2), layout='constrained')
  for (weight, curve), colour in zip(found['curves'].items(), (WITH, WITHOUT), strict=True):
    ax.fill_between(found['step'], curve['low'], curve['high'], color=colour, alpha=0.2, lw=0)
    ax.plot(found['step'], curve['median'], color=colour, lw=1.3, label=NAMES[weight])
  ax.axhline(0, color='grey', lw=0.6, zorder=0)
  ax.set(
    xlabel='adversarial step',
    ylabel='log likelihood of a draw',
    xlim=(0, found['step'][-1]),
    title=f'median and quartiles over {found["runs"]} runs',
  )
  ax.legend(loc='lower right', frameon=False)
  _save(fig, path)


def _save(fig: Any, path: pathlib.Path) -> None:
  from matplotlib import pyplot as plt

  fig.savefig(path, dpi=110)
  plt.close(fig)
