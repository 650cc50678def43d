"""What an imperfect segmenter might have answered: a prediction made from the labels themselves.

Its mistakes are those of real ones: outlines that wander, thin and small things overlooked, whole
regions taken for a look-alike class, and an answer everywhere, also where none is scored.

Letters: H x W pixels. Lengths are shares of H, so that the answer looks alike at every size.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from car_jax.data.labels import LABEL_ID_TO_TRAIN_ID, UNLABELLED

SCORED = np.flatnonzero(LABEL_ID_TO_TRAIN_ID != UNLABELLED)
WOBBLE = (0.3, 0.004)  # how far outlines wander: pixels, and a share of H
SMALL = 0.0012  # things smaller than this share of H * H may be overlooked
OVERLOOKED = 0.2
OVERLOOKABLE = (17, 19, 20, 24, 25, 32, 33)
MIXED_UP: tuple[tuple[int, int, float], ...] = (
  # taken for: probability that one connected region of the first class is called the second
  *((24, 25, 0.02), (25, 24, 0.12), (26, 27, 0.004), (27, 26, 0.06), (27, 28, 0.04)),
  *((28, 27, 0.05), (28, 31, 0.03), (31, 28, 0.1), (32, 33, 0.15), (33, 32, 0.03)),
  *((12, 11, 0.1), (12, 13, 0.06), (13, 11, 0.06), (13, 21, 0.08), (22, 21, 0.07), (22, 8, 0.05)),
  *((8, 7, 0.03), (19, 20, 0.04)),
)
BLURRED: tuple[tuple[int, int, float], ...] = (
  # patches of the first class called the second: the share of its area, roughly
  *((8, 7, 0.05), (7, 8, 0.004), (11, 21, 0.01), (21, 11, 0.02), (11, 12, 0.004)),
  *((21, 22, 0.004), (22, 21, 0.06)),
)


def imperfect(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """labels uint8 [H, W], label ids -> label ids of scored classes only, uint8 [H, W]."""
  height = len(labels)
  known = np.isin(np.arange(256), SCORED)[labels]
  answer = np.where(known, labels, 0).astype(np.uint8)
  _overlook(answer, rng)
  answer = _filled(answer)
  _mix_up(answer, rng)
  patch = _smooth(rng, labels.shape, height / 7)
  order = np.sort(patch.ravel()[:: max(1, patch.size // 4096)])
  before = answer.copy()
  for number, (true, taken, share) in enumerate(BLURRED):
    # neighbouring quantiles, so that no patch of noise serves two confusions of one class
    start = (number * 0.17) % 0.8
    low, high = (order[int(q * (len(order) - 1))] for q in (start, start + share))
    answer[(before == true) & (patch >= low) & (patch < high)] = taken
  return _wobbled(answer, rng)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], cell: float) -> np.ndarray:
  """Noise in about -1 to 1, smooth over `cell` pixels, float32 [shape]."""
  rows, columns = (max(3, round(s / cell)) for s in shape)
  coarse = Image.fromarray(rng.random((rows, columns), np.float32) * 2 - 1)
  return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _wobbled(answer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Every pixel's answer fetched from a little beside it, so that outlines move and bend."""
  height, width = answer.shape
  rows, columns = np.ogrid[:height, :width]
  away = []
  for _ in range(2):
    field = _smooth(rng, answer.shape, height / 12) + _smooth(rng, answer.shape, height / 36)
    away.append(np.rint(field * (WOBBLE[0] + WOBBLE[1] * height)).astype(np.int32))
  rows = np.clip(rows + away[0], 0, height - 1)
  return answer[rows, np.clip(columns + away[1], 0, width - 1)]


def _overlook(answer: np.ndarray, rng: np.random.Generator) -> None:
  """Sets small things to 0 here and there."""
  for label in OVERLOOKABLE:
    regions, count = ndimage.label(answer == label)
    if count:
      areas = np.bincount(regions.ravel(), minlength=count + 1)
      lost = (areas < SMALL * len(answer) ** 2) & (rng.random(count + 1) < OVERLOOKED)
      lost[0] = False
      answer[lost[regions]] = 0


def _mix_up(answer: np.ndarray, rng: np.random.Generator) -> None:
  """Renames whole connected regions after a look-alike class."""
  before = answer.copy()
  for true in sorted({pair[0] for pair in MIXED_UP}):
    regions, count = ndimage.label(before == true)
    if not count:
      continue
    rolls, names = rng.random(count + 1), np.full(count + 1, true, np.uint8)
    for taken, chance in (pair[1:] for pair in MIXED_UP if pair[0] == true):
      names[(rolls >= 0) & (rolls < chance)] = taken
      rolls -= chance
    answer[regions > 0] = names[regions[regions > 0]]


def _filled(answer: np.ndarray) -> np.ndarray:
  """Every 0 replaced by the nearest answer, searched on every other pixel, for speed."""
  coarse = answer[::2, ::2]
  if not coarse.any():
    return np.where(answer, answer, SCORED[0]).astype(np.uint8)
  where = ndimage.distance_transform_edt(coarse == 0, return_distances=False, return_indices=True)
  nearest = coarse[tuple(where)].repeat(2, 0).repeat(2, 1)[: answer.shape[0], : answer.shape[1]]
  return np.where(answer, answer, nearest)
