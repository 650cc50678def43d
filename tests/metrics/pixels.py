"""Cells of counts that a test makes itself, and scores of them by name."""

import jax

from car_jax.evaluate.cell import Cell
from car_jax.metrics import catalogue, of_pixels
from car_jax.metrics.base import Traits
from car_jax.metrics.catalogue import Setting
from car_jax.metrics.pixel_counts import PixelCounts

SOURCE = PixelCounts()
LOGITS = Traits(draws=False, logits=True)
NAMES = of_pixels.NAMES
SETTING = Setting(class_names=('a', 'b'), one_label=True)


def metric(name):
  return catalogue.metric(name, SETTING)


def empty(traits=LOGITS):
  return Cell(traits)


def add(cell, counts, ids, groups=None):
  """The images of onepass.Counts."""
  state = {k: v for k, v in jax.device_get(counts)._asdict().items() if v is not None}
  cell.add([SOURCE], [state], ids, groups or [''] * len(ids))


def totals(cell):
  return cell.total(SOURCE)


def value(name, total):
  return metric(name).compute(total)
