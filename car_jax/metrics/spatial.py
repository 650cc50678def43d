"""How an uncertainty map [H, W] is spread over an image: arXiv 2603.29941. On the host.

Neighbours are the four next pixels; a pair counts where both pixels are valid.
"""

from typing import Any

import numpy as np

BINS = 4
ROWS = 64  # of windows at a time, which bounds the memory
EDGE = 0.2  # Sobel magnitude from which on a pixel is an edge
FLAT = 1e-12  # spread of rounding


def moran(u: np.ndarray, valid: np.ndarray | None = None) -> float:
  """Moran's I: the correlation of neighbouring pixels; nan of a constant map, which has none."""
  d, pairs, valid = _centred(u, valid)
  spread, ordered = np.sum(d[valid] ** 2), 2 * sum(x.size for x, _ in pairs)
  if not ordered or spread <= FLAT * valid.sum():
    return float('nan')
  return float(valid.sum() / ordered * 2 * sum(np.sum(a * b) for a, b in pairs) / spread)


def geary(u: np.ndarray, valid: np.ndarray | None = None) -> float:
  """Geary's C: squared differences of neighbours over those of any two; nan of a constant map."""
  d, pairs, valid = _centred(u, valid)
  spread, ordered = np.sum(d[valid] ** 2), 2 * sum(x.size for x, _ in pairs)
  if not ordered or spread <= FLAT * valid.sum():
    return float('nan')
  apart = 2 * sum(np.sum((a - b) ** 2) for a, b in pairs)
  return float((valid.sum() - 1) * apart / (2 * ordered * spread))


def mass_ratio(u: np.ndarray, local: str, valid: np.ndarray | None = None) -> float:
  """The share of the map's mass where the 3 x 3 window around a pixel has the measure `local`.

  Each pixel's share is its measure in [0, 1], one of LOCAL. u in [0, 1]: divide an entropy by
  log C. nan without any mass.
  """
  u = np.asarray(u, np.float64)
  mass = u if valid is None else np.where(valid, u, 0.0)
  total = np.sum(mass)
  if not total > 0:
    return float('nan')
  around = windows(u)
  parts = (np.s_[k : k + ROWS] for k in range(0, len(u), ROWS))
  return float(sum(np.sum(mass[part] * LOCAL[local](around[part])) for part in parts) / total)


def windows(u: np.ndarray) -> np.ndarray:
  """The 3 x 3 window around each pixel [H, W, 3, 3]; beyond the edge the image is reflected."""
  mode: Any = 'reflect' if min(u.shape) > 1 else 'edge'  # a line of pixels has nothing to reflect
  return np.lib.stride_tricks.sliding_window_view(np.pad(u, 1, mode=mode), (3, 3))


def _edges(w: np.ndarray) -> np.ndarray:
  """The share of the nine pixels whose Sobel magnitude, within the window alone, is above EDGE."""
  w = np.pad(w, ((0, 0), (0, 0), (1, 1), (1, 1)), mode='edge')
  smooth = lambda x: x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
  slope = lambda x: x[..., 2:] - x[..., :-2]
  turned = lambda x: np.swapaxes(x, -2, -1)
  across, down = slope(turned(smooth(turned(w)))), turned(slope(turned(smooth(w))))
  return np.mean(np.hypot(across, down) > EDGE, (-2, -1))


def _entropy(w: np.ndarray) -> np.ndarray:
  """Of the histogram of the nine values in BINS bins on [0, 1], over its maximum."""
  k = np.minimum(np.floor(w * BINS), BINS - 1)
  share = np.stack([np.mean(k == b, (-2, -1)) for b in range(BINS)])
  logs = np.log2(share, out=np.zeros_like(share), where=share > 0)
  return 0 - np.sum(share * logs, 0) / np.log2(BINS)


def _moran(w: np.ndarray) -> np.ndarray:
  """Moran's I of the window, 0 at least; a constant window has 1."""
  d = w - w.mean((-2, -1), keepdims=True)
  spread = np.sum(d * d, (-2, -1))
  near = np.sum(d[..., 1:, :] * d[..., :-1, :], (-2, -1)) + np.sum(
    d[..., 1:] * d[..., :-1], (-2, -1)
  )
  flat = spread <= FLAT
  return np.where(flat, 1.0, np.maximum(9 / 12 * near / np.where(flat, 1.0, spread), 0))


LOCAL = dict(edges=_edges, entropy=_entropy, moran=_moran)


def _centred(u: np.ndarray, valid: np.ndarray | None):
  """The map minus its mean, neighbours' values in pairs, and which pixels are valid."""
  u = np.asarray(u, np.float64)
  valid = np.ones(u.shape, bool) if valid is None else np.asarray(valid, bool)
  d = u - (u[valid].mean() if valid.any() else 0)
  both = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))
  keep = lambda a, b: valid[a] & valid[b]
  return d, [(d[a][keep(a, b)], d[b][keep(a, b)]) for a, b in both], valid
