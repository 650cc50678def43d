"""Scores of each unknown object: GenVal's, per image, then averaged over the images of an object.

For sets whose ids are OBJECT/NAME. See pixel_counts.objects_of for the scores.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from car_jax.errors import UserError
from car_jax.metrics import bootstrap, catalogue
from car_jax.metrics.catalogue import Setting
from car_jax.metrics.of_pixels import OBJECT_NAMES
from car_jax.reliability.study import Cell
from car_jax.report import table

SETTING = Setting(class_names=('',), one_label=True)
AVERAGES = {'images': 'all images', 'objects': 'mean of objects'}


def of_cell(c: Cell, *, resamples: int, seed: int) -> list[dict[str, Any]]:
  """An entry of study.json for each object of the cell's images, and for the two averages.

  An image in which a score is undefined, such as one without an unknown pixel, is left out of its
  mean. Intervals are by resampling scenes. Raises UserError for an image of another name.
  """
  if odd := next((i for i in c.counts.ids if '/' not in i), ''):
    raise UserError(
      f'set {c.set!r} is by object, and its image {odd!r} is not called OBJECT/NAME\n'
      '  leave by_object out of the set'
    )
  objects = np.array([i.rpartition('/')[0] for i in c.counts.ids])
  groups = np.array(c.counts.groups if any(c.counts.groups) else c.counts.ids)
  x, kinds = c.pixels, catalogue.metrics(OBJECT_NAMES, SETTING)
  there = [not m.left_out(c.counts.traits) for m in kinds]
  values = np.where((x['with_objects'] > 0) & there, x['objects'], np.nan)
  how = dict(resamples=resamples, seed=seed)
  out = []
  for name in [*sorted({*objects.tolist()}), None]:
    here = objects == name if name is not None else np.ones(len(objects), bool)
    entry = c.place | dict(object=name, average=None if name else 'images', images=int(here.sum()))
    intervals = [bootstrap.interval(v, groups=groups[here], **how) for v in values[here].T]
    estimates = {
      m: dict(value=i.mean, low=i.low, high=i.high)
      for m, i in zip(OBJECT_NAMES, intervals, strict=True)
      if not math.isnan(i.mean)
    }
    out.append(entry | dict(values=estimates))
  return [*out, c.place | _over_objects(out[:-1])]


def _over_objects(entries: list[dict[str, Any]]) -> dict[str, Any]:
  """Each object counts once, however many images it has."""
  by_measure = {
    m: [e['values'][m]['value'] for e in entries if m in e['values']] for m in OBJECT_NAMES
  }
  means = {
    m: dict(value=float(np.mean(v)), low=None, high=None) for m, v in by_measure.items() if v
  }
  images = sum(e['images'] for e in entries)
  return dict(object=None, average='objects', images=images, values=means)


def title(entry: Mapping[str, Any]) -> str:
  """The object, or what the entry is the average of."""
  return str(entry['object']) if entry.get('object') is not None else AVERAGES[entry['average']]


def csv(entries: Iterable[Mapping[str, Any]]) -> str:
  """One row an entry: fractions, with the ends of their intervals."""
  head = ['model', 'set', 'calibrator', 'object', 'average', 'images']
  titles = [f'{m}{end}' for m in OBJECT_NAMES for end in ('', '_low', '_high')]
  rows = []
  for e in entries:
    row = [e[k] for k in head]
    for m in OBJECT_NAMES:
      estimate = e['values'].get(m) or {}
      row += [estimate.get(k) for k in ('value', 'low', 'high')]
    rows.append(row)
  return table.csv([*head, *titles], rows)
