"""A sentence about a street scene, made from its labels: what is in it, how much of it, and where.

It has the form of the captions that GenVal's ControlNet was trained with (arXiv 2312.09231): lower
case, no full stop, 4 to 18 words. Letters: H x W pixels. Label ids are Cityscapes' 34.
"""

import numpy as np
from scipy import ndimage

WORDS = 18  # at most
THINGS = {
  24: ('person', 'people'),
  25: ('rider', 'riders'),
  26: ('car', 'cars'),
  27: ('truck', 'trucks'),
  28: ('bus', 'buses'),
  29: ('caravan', 'caravans'),
  30: ('trailer', 'trailers'),
  31: ('train', 'trains'),
  32: ('motorcycle', 'motorcycles'),
  33: ('bicycle', 'bicycles'),
  19: ('traffic light', 'traffic lights'),
  20: ('traffic sign', 'traffic signs'),
}
"""What can be counted: label id -> one, several."""
SMALLEST = 0.0004  # share of the picture that a thing has at least, or it is not mentioned
NUMBERS = ('no', 'a', 'two', 'three', 'four')
MORE, MANY = ('several', 'many'), 8  # regions, from which on there are many
ROAD, BUILDING, VEGETATION, SKY = 7, 11, 21, 23
STREETS = ('a city scene', 'a green scene', 'a city street', 'a road')
SURROUNDINGS = ((VEGETATION, 0.08, 'trees'), (SKY, 0.25, 'a wide sky'))
"""Label id, the share of the picture from which it is mentioned, and how."""
PLACES = ('on the left', 'in the middle', 'on the right', 'on both sides')


def sentence(label_ids: np.ndarray) -> str:
  """Label ids [H, W] -> such as 'a city street with trees, several cars on the left and a person in
  the middle'. The things with most pixels come first, as many as fit.

  What touches is counted once: labels do not tell one car from the next.
  """
  counts = np.bincount(np.asarray(label_ids, np.uint8).ravel(), minlength=256)
  share = counts / label_ids.size
  parts = _surroundings(share)
  start = _street(share)
  for thing in sorted(THINGS, key=lambda k: -share[k]):
    if share[thing] < SMALLEST or not (part := _counted(label_ids == thing, *THINGS[thing])):
      continue
    if len(_joined(start, [*parts, part]).split()) > WORDS:
      break
    parts.append(part)
  return _joined(start, parts)


def vocabulary() -> list[str]:
  """What sentences are made of, for a tokenizer."""
  parts = [*STREETS, *(words for *_, words in SURROUNDINGS), *NUMBERS[1:], *MORE, *PLACES]
  return [*parts, *(word for pair in THINGS.values() for word in pair), 'with , and']


def _street(share: np.ndarray) -> str:
  city, green, street, road = STREETS
  if share[ROAD] < 0.02:
    return city if share[BUILDING] >= share[VEGETATION] else green
  return street if share[BUILDING] >= 0.08 else road


def _surroundings(share: np.ndarray) -> list[str]:
  return [words for label, least, words in SURROUNDINGS if share[label] >= least]


def _counted(there: np.ndarray, one: str, several: str) -> str:
  """there [H, W] bool -> 'two cars on the right'; '' where all regions are too small."""
  regions, count = ndimage.label(there)
  sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
  number = int(np.sum(sizes >= SMALLEST * there.size))
  if not number:
    return ''
  if number == 1:
    words = f'a {one}'
  elif number < len(NUMBERS):
    words = f'{NUMBERS[number]} {several}'
  else:
    words = f'{MORE[number >= MANY]} {several}'
  return f'{words} {_place(there)}'


def _place(there: np.ndarray) -> str:
  """Where most of the pixels lie, in thirds of the width."""
  left, middle, right = (part.sum() / there.sum() for part in np.array_split(there, 3, axis=1))
  if min(left, right) > max(0.25, middle):
    return PLACES[3]
  return PLACES[int(np.argmax([left, middle, right]))]


def _joined(start: str, parts: list[str]) -> str:
  if not parts:
    return start
  *some, last = parts
  return f'{start} with ' + (f'{", ".join(some)} and {last}' if some else last)
