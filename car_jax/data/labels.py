"""Label ids of Cityscapes, GTA5, SYNTHIA and IDD, and of random class flips (arXiv:2006.13144).

Letters: H x W pixels, F flipping classes. The flips themselves, and why, are in metrics/flips.py.
"""

from collections.abc import Collection

import numpy as np

from car_jax.metrics.flips import FLIPS, UNLABELLED, Flip

IGNORED_TRAIN_ID = 255  # what Cityscapes' own files say where no class is scored
UNKNOWN_LABEL = 254  # in prepared data: an object of no known class, which is to be detected

_SCORED_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

LABEL_ID_TO_TRAIN_ID = np.full(34, UNLABELLED, np.uint8)
"""Cityscapes' 34 label ids -> 0 to 18, and 24 for those that are not scored."""
LABEL_ID_TO_TRAIN_ID[list(_SCORED_LABEL_IDS)] = np.arange(len(_SCORED_LABEL_IDS))

CITYSCAPES_TO_TRAIN_ID = np.full(256, IGNORED_TRAIN_ID, np.uint8)
"""Label ids of Cityscapes and of GTA5, which took them over, -> 0 to 18, and 255 for the rest."""
CITYSCAPES_TO_TRAIN_ID[list(_SCORED_LABEL_IDS)] = np.arange(len(_SCORED_LABEL_IDS))

CITYSCAPES_IDS = range(34)
"""Ids that label pictures may hold, here and below; others are no class of the data set."""
ACDC_IDS = (*CITYSCAPES_IDS, IGNORED_TRAIN_ID)
GTA5_IDS = (*range(35), IGNORED_TRAIN_ID)
GTA5_LICENCE_PLATE = 34  # which Cityscapes does not number
SYNTHIA_IDS = range(23)
IDD_IDS = (*range(26), IGNORED_TRAIN_ID)
TRAIN_IDS = (*range(len(_SCORED_LABEL_IDS)), IGNORED_TRAIN_ID)

TRAIN_ID_TO_LABEL_ID = np.zeros(256, np.uint8)
"""0 to 18 -> Cityscapes' label ids; what is no class becomes 0, unlabelled."""
TRAIN_ID_TO_LABEL_ID[: len(_SCORED_LABEL_IDS)] = _SCORED_LABEL_IDS

SYNTHIA_TO_TRAIN_ID = np.full(256, IGNORED_TRAIN_ID, np.uint8)
"""Ids of SYNTHIA-RAND-CITYSCAPES -> 0 to 18, and 255 for the rest."""
_SYNTHIA_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)
SYNTHIA_TO_TRAIN_ID[list(_SYNTHIA_IDS)] = np.arange(len(_SYNTHIA_IDS))
SYNTHIA_ABSENT = (9, 14, 16)
"""Train ids that SYNTHIA does not label: its 16 classes are the others."""
SYNTHIA_RARE = (3, 4, 5)
"""Train ids that the means over 13 classes leave out besides."""
_SYNTHIA_LABELLED = tuple(k for k in range(len(_SYNTHIA_IDS)) if k not in SYNTHIA_ABSENT)
SYNTHIA_MEANS = (_SYNTHIA_LABELLED, tuple(k for k in _SYNTHIA_LABELLED if k not in SYNTHIA_RARE))
"""The 16 and the 13 train ids that papers on SYNTHIA average."""

IDD_TO_TRAIN_ID = np.full(256, IGNORED_TRAIN_ID, np.uint8)
"""IDD's level-3 ids -> Cityscapes' train ids; nothing becomes terrain or train."""
IDD_SCORED = {0: 0, 2: 1, 4: 11, 5: 12, 6: 17, 7: 18, 9: 13, 10: 14, 11: 15, 14: 3, 15: 4, 18: 7}
IDD_SCORED |= {19: 6, 20: 5, 22: 2, 24: 8, 25: 10}
IDD_TO_TRAIN_ID[list(IDD_SCORED)] = list(IDD_SCORED.values())
IDD_UNSCORED = {
  1: 'parking',
  3: 'rail track',
  8: 'autorickshaw',
  12: 'other vehicle',
  13: 'curb',
  16: 'guard rail',
  17: 'billboard',
  21: 'other barrier',
  23: 'bridge',
}
"""Those of IDD's level-3 ids that are no class of Cityscapes: candidates for unknown objects."""

CLASS_NAMES: tuple[str, ...] = (
  'road',
  'sidewalk',
  'building',
  'wall',
  'fence',
  'pole',
  'traffic light',
  'traffic sign',
  'vegetation',
  'terrain',
  'sky',
  'person',
  'rider',
  'car',
  'truck',
  'bus',
  'train',
  'motorcycle',
  'bicycle',
)
CLASS_NAMES += (*(f'{CLASS_NAMES[flip.base]} 2' for flip in FLIPS), 'unlabelled')

SCORED = len(_SCORED_LABEL_IDS)
UNLABELLED_COLOUR = (0, 0, 0)
PALETTE = (
  *((128, 64, 128), (60, 40, 222), (70, 70, 70), (102, 102, 156), (190, 153, 153)),
  *((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152)),
  *((70, 130, 180), (220, 20, 60), (0, 0, 110), (0, 0, 142), (0, 0, 70), (0, 60, 100)),
  *((0, 80, 100), (0, 0, 230), (119, 11, 32), (219, 112, 147), (0, 180, 0), (255, 0, 255)),
  *((255, 0, 0), (255, 165, 0), UNLABELLED_COLOUR),
)

OFFICIAL_PALETTE = (
  *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153)),
  *((153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152)),
  *((70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100)),
  *((0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
"""Cityscapes' own colours of the 19 classes; PALETTE tells the flipping classes apart better."""
_COLOURS = np.full((256, 3), UNLABELLED_COLOUR, np.uint8)
_COLOURS[: len(OFFICIAL_PALETTE)] = OFFICIAL_PALETTE


def twin_colour(k: int) -> tuple[int, int, int]:
  """Of the k-th flipping class, for any number of them."""
  return PALETTE[SCORED + k % len(FLIPS)]


def strange(ids: np.ndarray, known: Collection[int]) -> str:
  """What is wrong with ids [...] that are not all among `known`, in words; '' if nothing is.

  Looked up in a table, such ids would silently become ignored. known: 0 to some number, perhaps
  with IGNORED_TRAIN_ID.
  """
  values, counts = np.unique(ids, return_counts=True)
  wrong = ~np.isin(values, [*known])
  if not wrong.any():
    return ''
  low, last = min(known), max(k for k in known if k != IGNORED_TRAIN_ID)
  expected = f'{low} to {last}' + f' and {IGNORED_TRAIN_ID}' * (IGNORED_TRAIN_ID in known)
  others = f', nor are {wrong.sum() - 1} other ids' if wrong.sum() > 1 else ''
  share = 100 * counts[wrong].sum() / np.size(ids)
  first = values[wrong][0]
  return f'id {first} is no class; expected {expected} ({share:.2g} % of pixels{others})'


def train_ids(label_ids: np.ndarray) -> np.ndarray:
  """Label ids 0 to 33 of any shape -> train ids uint8; any other value becomes unlabelled."""
  return _looked_up(LABEL_ID_TO_TRAIN_ID, label_ids, UNLABELLED)


def scored_train_ids(label_ids: np.ndarray) -> np.ndarray:
  """Label ids of any shape, Cityscapes', ACDC's or GTA5's -> 0 to 18, and 255 for the rest."""
  return _looked_up(CITYSCAPES_TO_TRAIN_ID, label_ids)


def synthia_train_ids(ids: np.ndarray) -> np.ndarray:
  """SYNTHIA's 16-bit ids of any shape -> 0 to 18, and 255 for the rest."""
  return _looked_up(SYNTHIA_TO_TRAIN_ID, ids)


def label_ids(train_ids: np.ndarray) -> np.ndarray:
  """Train ids of any shape -> Cityscapes' label ids uint8; what is no class becomes 0."""
  return TRAIN_ID_TO_LABEL_ID[np.asarray(train_ids)]


def colours(train_ids: np.ndarray) -> np.ndarray:
  """Train ids [...] -> Cityscapes' colours [..., 3] uint8; what is no class is black."""
  return _COLOURS[np.asarray(train_ids)]


def _looked_up(table: np.ndarray, ids: np.ndarray, outside: int = IGNORED_TRAIN_ID) -> np.ndarray:
  """table[ids], for ids that may lie outside of it."""
  ids = np.asarray(ids)
  known = (ids >= 0) & (ids < len(table))
  return np.where(known, table[np.where(known, ids, 0)], np.uint8(outside))


def idd_train_ids(level3_ids: np.ndarray, unknown: Collection[int] = ()) -> np.ndarray:
  """IDD's level-3 ids of any shape -> 0 to 18, 255 for no such class, 254 for ids in `unknown`."""
  table = IDD_TO_TRAIN_ID.copy()
  table[list(unknown)] = UNKNOWN_LABEL
  return table[np.asarray(level3_ids)]


def flip_classes(
  label: np.ndarray, rolls: np.ndarray, flips: tuple[Flip, ...] = FLIPS
) -> np.ndarray:
  """Renames class f to its twin in the whole map where rolls[f] is below its probability.

  label [H, W], rolls [F] uniform in [0, 1), in the order of `flips` -> the label's shape and type.
  """
  table = np.arange(256, dtype=label.dtype)
  for flip, roll in zip(flips, rolls, strict=True):
    if roll < flip.probability:
      table[flip.base] = flip.twin
  return table[label]
