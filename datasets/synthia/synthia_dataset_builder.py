"""SYNTHIA-RAND-CITYSCAPES (https://synthia-dataset.net): drawn streets in Cityscapes' classes."""

import pathlib

import numpy as np

from car_jax.data import labels
from car_jax.datasets import base, common, layout
from car_jax.datasets.base import ScaledConfig as Config
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS, DIGITS = 'RGB', 'GT/LABELS', 7
FRAMES = range(9400)
VALIDATION = pathlib.Path(__file__).with_name('validation.txt')


class Builder(base.Builder):
  """SYNTHIA's drawn streets, at `scale` of their size.

  `train` is every frame and `validation` 400 of the same, as in DA-SAC (arXiv 2105.00097). Three of
  the 19 classes are not labelled: terrain, truck and train.
  """

  TRAINING = 'sac_synthia'
  ABOUT = cityscapes.about(
    licence='CC BY-NC-SA 3.0', citation='Ros et al., The SYNTHIA dataset, CVPR 2016'
  )
  HOMEPAGE = 'https://synthia-dataset.net'
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    RGB/NNNNNNN.png and GT/LABELS/NNNNNNN.png, of 16 bits with the class in the first of three
    channels: the folder RAND_CITYSCAPES of SYNTHIA-RAND-CITYSCAPES ({HOMEPAGE})"""
  BUILDER_CONFIGS = [Config(description='1280x760, as DA-SAC trains on')]

  def splits(self, source):
    frames = common.numbered(source / IMAGES, DIGITS, FRAMES, self.problems)
    layout.unread(source, (IMAGES, 'GT'), self.problems)
    layout.unread(source / 'GT', ('LABELS',), self.problems)
    names = {path.name for path in frames.values()}
    for label in layout.unpaired(source / LABELS, names, self.problems):
      missing = source / IMAGES / label.name
      self.problems.add(missing, f'missing, but its label {label} is there')
    chosen = common.listed_numbers(VALIDATION)
    validation = [path for number, path in frames.items() if number in chosen]
    return {'train': [*frames.values()], 'validation': validation}

  def example(self, path):
    label_path = self.source / LABELS / path.name
    maps = [(label_path, read_label(label_path, self.problems))]
    for image, label in cityscapes.scaled(path, maps, self.builder_config.scale, self.problems):
      yield path.stem, path.stem, image, label[None]


def read_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids of a picture of three channels of 16 bits, of which the first holds the class."""
  picture = common.open_picture(path, problems)
  if picture is None:
    return None
  if picture.values.ndim != 3 or picture.values.dtype != np.uint16 or picture.alpha is not None:
    problems.add(path, "is no PNG of three channels of 16 bits; take those of SYNTHIA's GT/LABELS")
    return None
  ids, convert = picture.values[..., 0], labels.synthia_train_ids
  return cityscapes.train_ids(path, ids, labels.SYNTHIA_IDS, convert, problems)
