"""Street scenes that are drawn, not photographed: Cityscapes' classes with no download."""

import functools
from collections.abc import Iterator

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError
from datasets import common
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from datasets.options import INT64, Option
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

  The scenes of one `--seed` are the same in every domain. A share `--unknown` of them holds objects
  of no known class, which are 254 in the labels. `--part test` draws the test split alone.
  `python -m datasets.street_scenes` writes the same scenes as files.
  """

  CONFIG = 'car_street_scenes'
  SOURCE = ''
  OPTIONS = {
    'height': Option(128, 'rows of an image, an even number', 32, 1024),
    'count': Option(800, 'scenes to train on', 4, SPLITS['validation'][2]),
    'domain': Option('clear', 'weather', choices=scenes.DOMAINS),
    'strength': Option(1.0, 'of the weather', 0, 1),
    'seed': Option(0, 'other scenes', 0, INT64),
    'unknown': Option(0.0, 'share of scenes with unknown objects', 0, 1),
    'part': Option('all', 'the splits to draw', choices=('all', *SPLITS)),
  }

  @classmethod
  def check(cls, values):
    if values['height'] % 2:
      raise UserError(
        f'--height cannot be {values["height"]}\n  expected an even number from 32 to 1024'
      )

  def contents(self, options, problems):
    values = options.values
    make = functools.partial(examples, values)
    return cityscapes.contents(
      {s: (size(s, values), functools.partial(make, s)) for s in chosen(values['part'])},
      black_box=True,
      unknown_label=labels.UNKNOWN_LABEL if values['unknown'] > 0 else None,
      licence='made by this project; free to use',
      citation='car_jax, street_scenes',
    )


def chosen(part: str) -> tuple[str, ...]:
  """The splits of a --part."""
  return tuple(SPLITS) if part == 'all' else (part,)


def size(split: str, values: dict) -> int:
  return int(values['count'] * SPLITS[split][3])


def drawn(values: dict, split: str, k: int) -> tuple[scenes.Scene, np.ndarray]:
  """Scene k of a split, and the label ids of its black box, uint8 [H, W]."""
  index = SPLITS[split][2] + k
  kw = {key: values[key] for key in ('height', 'domain', 'strength')}
  scene = scenes.render(values['seed'], index, unknown_share=values['unknown'], **kw)
  rng = np.random.default_rng([values['seed'], index, 1])
  return scene, black_box.imperfect(scene.labels, rng)


def name(split: str, k: int) -> tuple[str, str]:
  """The city and the stem of the file names of a scene, as in Cityscapes."""
  cities = SPLITS[split][1]
  city = sorted(cities)[k % len(cities)]
  return city, f'{city}_{k // len(cities):06d}_000019'


def examples(values: dict, split: str) -> Iterator[common.Example]:
  for k in range(size(split, values)):
    scene, box = drawn(values, split, k)
    told = '/'.join(name(split, k))
    label = labels.scored_train_ids(scene.labels)
    label[scene.unknown] = labels.UNKNOWN_LABEL
    yield told, told, scene.image, label[None], labels.scored_train_ids(box)
