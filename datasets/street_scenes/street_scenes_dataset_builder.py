"""Street scenes that are drawn, not photographed: Cityscapes' classes with no download."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from datasets import common
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from datasets.street_scenes import black_box, scenes

# split -> its folder in Cityscapes' layout, its cities there, its first scene, its share of --count
SPLITS = {
  'train': ('train', ('aachen', 'bochum', 'cologne', 'hanover'), 0, 1.0),
  'validation': ('train', cityscapes.VALIDATION_CITIES, 1_000_000, 0.25),
  'test': ('val', ('frankfurt', 'lindau', 'munster'), 2_000_000, 0.25),
}


class Builder(common.Builder):
  """`--count` training scenes and a quarter as many for validation and for testing, each with a
  black-box prediction, `--height` x twice that, in one `--domain` of a `--strength` from 0 to 1.

  The scenes of one `--seed` are the same in every domain. `python -m datasets.street_scenes` writes
  the same scenes as files.
  """

  def contents(self, options, problems):
    values = options.values
    scenes.check(values['domain'], values['strength'])
    make = functools.partial(examples, values)
    return cityscapes.contents(
      {split: (size(split, values), functools.partial(make, split)) for split in SPLITS},
      black_box=True,
      licence='made by this project; free to use',
      citation='car_jax, street_scenes',
    )


def size(split: str, values: dict) -> int:
  return int(values['count'] * SPLITS[split][3])


def drawn(values: dict, split: str, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Scene k of a split: image [H, W, 3], label ids and black-box label ids [H, W], all uint8."""
  index = SPLITS[split][2] + k
  kw = dict(height=values['height'], domain=values['domain'], strength=values['strength'])
  scene = scenes.render(values['seed'], index, **kw)
  rng = np.random.default_rng([values['seed'], index, 1])
  return scene.image, scene.labels, black_box.imperfect(scene.labels, rng)


def name(split: str, k: int) -> tuple[str, str]:
  """The city and the stem of the file names of a scene, as in Cityscapes."""
  cities = SPLITS[split][1]
  city = sorted(cities)[k % len(cities)]
  return city, f'{city}_{k // len(cities):06d}_000019'


def examples(values: dict, split: str) -> Iterator[common.Example]:
  for k in range(size(split, values)):
    image, ids, box = drawn(values, split, k)
    told, problems = '/'.join(name(split, k)), common.Problems()
    label, box = (cityscapes.converted(pathlib.Path(told), x, problems) for x in (ids, box))
    yield told, told, image, label[None], box
