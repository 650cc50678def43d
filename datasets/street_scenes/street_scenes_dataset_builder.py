"""Street scenes that are drawn, not photographed: Cityscapes' classes with no download."""

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np

from car_jax.data import labels
from car_jax.datasets import base
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.datasets.street_scenes import black_box, scenes
from car_jax.errors import UserError
from car_jax.options import Range, Share

# split -> its folder in Cityscapes' layout, its cities there, its first scene, its share of --count
SPLITS = {
  'train': ('train', ('aachen', 'bochum', 'cologne', 'hanover'), 0, 1.0),
  'validation': ('train', cityscapes.VALIDATION_CITIES, 1_000_000, 0.25),
  'test': ('val', ('frankfurt', 'lindau', 'munster'), 2_000_000, 0.25),
}
FEW: dict[str, Any] = dict(height=64, count=400)


@dataclasses.dataclass
class Config(base.Config):
  height: Annotated[int, Range(32, 1024)] = 128
  """Rows of an image, an even number."""
  count: Annotated[int, Range(4, SPLITS['validation'][2])] = 800
  """Scenes to train on."""
  domain: Literal[scenes.DOMAINS] = 'clear'  # type: ignore[valid-type]
  """Weather."""
  strength: Share = 1.0
  """Of the weather."""
  seed: Annotated[int, Range(0, 2**63 - 1)] = 0
  """Other scenes."""
  unknown: Share = 0.0
  """Share of scenes with unknown objects."""
  part: Literal['all', *SPLITS] = 'all'  # type: ignore[valid-type]
  """The splits to draw."""

  @property
  def tested(self):
    return '' if self.part in ('all', 'train') else self.part

  def check(self):
    if self.height % 2:
      raise UserError(
        f'--height cannot be {self.height}\n  expected an even number from 32 to 1024'
      )


class Builder(base.Builder):
  """`count` training scenes and a quarter as many for validation and for testing, each with a
  black-box prediction, `height` x twice that, in one `domain` of a `strength` from 0 to 1.

  The scenes of one `seed` are the same in every domain. A share `unknown` of them holds objects of
  no known class, which are 254 in the labels. `part` test draws the test split alone.
  `python -m car_jax.datasets.street_scenes` writes the same scenes as files.
  """

  TRAINING = 'segmenters_street_scenes:segformer'
  BUILDER_CONFIGS = [
    Config(description='1,200 scenes of 128x256'),
    Config(height=64, description='1,200 scenes of 64x128, which CAR and MoSE train on'),
    Config(**FEW, description='600 of them: a labelled source to adapt from'),
    Config(**FEW, domain='snow', seed=1, description='A target to adapt to'),
    Config(**FEW, domain='fog', seed=1, part='test', description='Another weather to test in'),
  ]

  def about(self):
    return cityscapes.about(
      black_box=True,
      unknown_label=labels.UNKNOWN_LABEL if self.builder_config.unknown > 0 else None,
      licence='made by this project; free to use',
      citation='car_jax, street_scenes',
    )

  def splits(self, source):
    config = self.builder_config
    parts = SPLITS if config.part == 'all' else (config.part,)
    return {split: [(split, k) for k in range(size(split, config))] for split in parts}

  def example(self, item):
    scene, box = drawn(self.builder_config, *item)
    label, place = labels.scored_train_ids(scene.labels), '/'.join(name(*item))
    label[scene.unknown] = labels.UNKNOWN_LABEL
    yield place, place, scene.image, label[None], labels.scored_train_ids(box)


def size(split: str, config: Config) -> int:
  return int(config.count * SPLITS[split][3])


def drawn(config: Config, split: str, k: int) -> tuple[scenes.Scene, np.ndarray]:
  """Scene k of a split, and the label ids of its black box, uint8 [H, W]."""
  index, seed = SPLITS[split][2] + k, config.seed
  weather = dict(domain=config.domain, strength=config.strength)
  scene = scenes.render(seed, index, height=config.height, unknown_share=config.unknown, **weather)
  return scene, black_box.imperfect(scene.labels, np.random.default_rng([seed, index, 1]))


def name(split: str, k: int) -> tuple[str, str]:
  """The city and the stem of the file names of a scene, as in Cityscapes."""
  cities = SPLITS[split][1]
  city = sorted(cities)[k % len(cities)]
  return city, f'{city}_{k // len(cities):06d}_000019'
