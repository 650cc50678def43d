"""A drawing read back, for tests: the places of its marks, and values by its own tick labels."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np


class Drawing:
  """x, y: pixels to values, fitted to the numbers beside the axes. texts: all that is written."""

  def __init__(self, text):
    root = ElementTree.fromstring(text)
    kind = lambda e: (e.get('class') or '').split()
    groups = [*root.iter('g')]
    self.texts = [e.text for e in root.iter('text')]
    self.series = {e.find('title').text: e for e in groups if 's' in kind(e)}
    self.legend = [e.find('text') for e in groups if 'k' in kind(e)]
    self.x = self._scale([g for g in groups if kind(g) == ['n', 'middle']], 'x', 0)
    self.y = self._scale([g for g in groups if kind(g) == ['n', 'end']], 'y', 4)

  def _scale(self, groups, axis, shift):
    pairs = [
      (float(t.get(axis)) - shift, float(t.text.replace('−', '-')))
      for g in groups
      for t in g.iter('text')
      if re.fullmatch(r'−?\d[\d.]*', t.text)
    ]
    return np.poly1d(np.polyfit(*zip(*pairs, strict=True), 1)) if len(pairs) > 1 else None

  def shape(self, name, kind):
    """The d of a series' path."""
    found = [p.get('d') for p in self.series[name] if kind in (p.get('class') or '').split()]
    return ''.join(found)

  def marks(self, name):
    return self.absolute(self.shape(name, 'm'))

  def absolute(self, d):
    return [(float(a), float(b)) for a, b in re.findall(r'M(-?[\d.]+) (-?[\d.]+)', d)]

  def line(self, name):
    return self.path(name, 'l')

  def path(self, name, kind):
    numbers = [float(v) for v in re.findall(r'-?\d*\.?\d+', self.shape(name, kind))]
    return [*map(tuple, np.cumsum(np.reshape(numbers, (-1, 2)), 0).tolist())]
