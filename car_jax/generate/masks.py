"""Where an object is that was painted into a box of a scene, or why its image is not used.

A method is a function (scene, edited, box, object) -> Mask. `difference` needs no weights: it looks
at what has changed. Those that ask a network for the object are in promptable.py.

Letters: H x W pixels of the scene, m of the box's side; both pictures uint8 [H, W, 3].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from car_jax.generate.boxes import Box

LEAST_CHANGE = 6.0
"""Of colour, in units of CIE Lab: less is taken for noise."""
AREA = (0.02, 0.85)
"""Shares of the box that an object may cover."""
CONTRAST, QUIET = 2.25, 2.0
"""How many times the change at the box's border an object's must be; less there counts as QUIET."""
CENTRE = 0.35
"""Deviation of the weight at the box's centre, where objects are expected, in sides of the box."""


class Mask(NamedTuple):
  """pixels bool [H, W], or None for an image that is rejected, with the reason."""

  pixels: np.ndarray | None
  score: float = 0.0
  reason: str = ''


Method = Callable[[np.ndarray, np.ndarray, Box, str], Mask]


def placed(inner: np.ndarray, scene: np.ndarray, box: Box) -> np.ndarray:
  """A mask of the box [m, m] -> of the scene, bool [H, W]."""
  whole = np.zeros(scene.shape[:2], bool)
  box.inside(whole)[...] = inner
  return whole


def accepted(inner: np.ndarray, scene: np.ndarray, box: Box, score: float) -> Mask:
  """The mask [m, m] in the scene; rejected where it is too small or too large for an object."""
  share, (least, most) = float(inner.mean()), AREA
  if not least <= share <= most:
    text = f'{100 * share:.1f} % of the box is covered, expected {100 * least:g} to {100 * most:g}'
    return Mask(None, score, text)
  return Mask(placed(inner, scene, box), score)


def difference(
  scene: np.ndarray,
  edited: np.ndarray,
  box: Box,
  name: str = '',
  *,
  prior: np.ndarray | None = None,
  grabcut: bool = False,
) -> Mask:
  """What differs most from the scene, in one piece near the box's centre.

  prior [m, m]: in [0, 1], how likely the object is at a place. grabcut: the outline follows edges
  of the edited picture (Rother et al., SIGGRAPH 2004). The score is how many times the change at
  the border the object's is. An inpainting net changes the whole box a little: where that is as
  much as the object's, the image is rejected.
  """
  before, after, m = box.inside(scene), box.inside(edited), box.size
  change = colour_distance(before, after, max(1.0, 0.012 * m))
  change = change if prior is None else change * prior
  most = float(np.quantile(change, 0.98))
  if most < LEAST_CHANGE:
    return Mask(None, reason=f'no change: {most:.1f} of at least {LEAST_CHANGE:g}')
  border = change[_ring(m)]
  usual = float(np.median(border))
  spread = 1.4826 * float(np.median(np.abs(border - usual)))
  threshold = min(max(otsu(change), usual + 3 * spread, LEAST_CHANGE), most)
  mask = _heaviest(_smoothed(change >= threshold, m), change * _centred(m))
  if mask is None:
    return Mask(None, reason='only specks have changed')
  if grabcut:
    mask = _grabcut(after, mask, m)
  mask = _heaviest(ndimage.binary_fill_holes(mask), np.ones((m, m)))
  if mask is None:
    return Mask(None, reason='no outline')
  score = float(np.median(change[mask])) / max(usual + spread, QUIET)
  if score < CONTRAST:
    text = f'the object has changed {score:.1f} times as much as the border of the box'
    return Mask(None, score, f'{text}, expected {CONTRAST:g}')
  return accepted(mask, scene, box, score)


def colour_distance(one: np.ndarray, other: np.ndarray, sigma: float) -> np.ndarray:
  """uint8 [m, m, 3] -> [m, m] float32: distance in CIE Lab of the blurred pictures."""
  import cv2

  lab = lambda x: cv2.cvtColor(x.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
  blurred = [ndimage.gaussian_filter(lab(x), (sigma, sigma, 0)) for x in (one, other)]
  return np.linalg.norm(blurred[0] - blurred[1], axis=-1)


def otsu(x: np.ndarray, bins: int = 256) -> float:
  """The threshold that tells two groups of values best apart (Otsu, 1979)."""
  counts, edges = np.histogram(x, bins)
  middles = (edges[:-1] + edges[1:]) / 2
  below, total = np.cumsum(counts), counts.sum()
  mass = np.cumsum(counts * middles)
  with np.errstate(divide='ignore', invalid='ignore'):
    between = (mass[-1] * below / total - mass) ** 2 / (below * (total - below))
  return float(edges[1:][np.nanargmax(between[:-1])])


def _ring(m: int) -> np.ndarray:
  """The border of the box, a sixteenth of it wide, bool [m, m]."""
  width = max(1, m // 16)
  ring = np.ones((m, m), bool)
  ring[width:-width, width:-width] = False
  return ring


def _centred(m: int) -> np.ndarray:
  x = (np.arange(m) + 0.5) / m - 0.5
  weight = np.exp(-0.5 * (x / CENTRE) ** 2)
  return weight[:, None] * weight


def _smoothed(mask: np.ndarray, m: int) -> np.ndarray:
  """Opened, then closed, by a disc of 0.03 m."""
  import cv2

  side = max(3, round(0.03 * m) | 1)
  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
  opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, disc)
  return cv2.morphologyEx(opened, cv2.MORPH_CLOSE, disc) > 0


def _heaviest(mask: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
  """The connected part with the most weight."""
  parts, count = ndimage.label(mask, np.ones((3, 3)))
  if not count:
    return None
  return parts == 1 + int(np.argmax(ndimage.sum_labels(weight, parts, range(1, count + 1))))


def _grabcut(image: np.ndarray, mask: np.ndarray, m: int) -> np.ndarray:
  """The mask with its outline where colours change; as it is where it has no core."""
  import cv2

  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, round(0.06 * m) | 1),) * 2)
  core, reach = (f(mask.astype(np.uint8), disc) for f in (cv2.erode, cv2.dilate))
  if not core.any() or reach.all():
    return mask
  guess = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
  guess = np.where(core, cv2.GC_FGD, np.where(reach, guess, cv2.GC_BGD)).astype(np.uint8)
  cv2.setRNGSeed(0)
  models = np.zeros((1, 65)), np.zeros((1, 65))
  how: Any = (None, *models, 3, cv2.GC_INIT_WITH_MASK)
  cv2.grabCut(np.ascontiguousarray(image), guess, *how)
  followed = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD))
  return followed if followed.any() else mask
