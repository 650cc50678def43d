"""SYNTHIA-RAND-CITYSCAPES (https://synthia-dataset.net): drawn streets in Cityscapes' classes."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from car_jax.data import labels
from datasets import common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS, DIGITS = 'RGB', 'GT/LABELS', 7
FRAMES = range(9400)
VALIDATION = pathlib.Path(__file__).with_name('validation.txt')
CITATION = 'Ros et al., The SYNTHIA dataset, CVPR 2016'


class Builder(common.Builder):
  """SOURCE/RGB/NNNNNNN.png and SOURCE/GT/LABELS/NNNNNNN.png of 16 bits, classes in the first of
  three channels; at `--scale` of their size.

  `train` is every frame and `validation` 400 of the same, as in DA-SAC (arXiv 2105.00097). Three of
  the 19 classes are not labelled: terrain, truck and train.
  """

  CONFIG = 'sac_synthia'
  OPTIONS = {'scale': common.scale(1.0)}

  def contents(self, options, problems):
    source, chosen = options.source, common.listed_numbers(VALIDATION)
    found = common.numbered(source / IMAGES, DIGITS, FRAMES, problems)
    names = {path.name for path in found.values()}
    layout.unread(source, (IMAGES, 'GT'), problems)
    layout.unread(source / 'GT', ('LABELS',), problems)
    for label in layout.unpaired(source / LABELS, names, problems):
      problems.add(source / IMAGES / label.name, f'missing, but its label {label} is there')
    splits = {
      'train': list(found.values()),
      'validation': [path for number, path in found.items() if number in chosen],
    }
    make = functools.partial(examples, source / LABELS, options.values['scale'], problems)
    return cityscapes.contents(
      {s: (len(paths), functools.partial(make, paths)) for s, paths in splits.items() if paths},
      licence='CC BY-NC-SA 3.0',
      citation=CITATION,
    )


def examples(
  gt: pathlib.Path, scale: float, problems: common.Problems, paths: list[pathlib.Path]
) -> Iterator[common.Example]:
  for path in paths:
    where = gt / path.name
    maps = [(where, read_label(where, problems))]
    for image, label in cityscapes.scaled(path, maps, scale, problems):
      yield path.stem, path.stem, image, label[None]


def read_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids of a picture of three channels of 16 bits, of which the first holds the class."""
  picture = common.open_picture(path, problems)
  if picture is None:
    return None
  if picture.values.ndim != 3 or picture.values.dtype != np.uint16 or picture.alpha is not None:
    problems.add(path, "is no PNG of three channels of 16 bits; take those of SYNTHIA's GT/LABELS")
    return None
  ids = picture.values[..., 0]
  if not cityscapes.in_range(path, ids, labels.SYNTHIA_IDS, problems):
    return None
  return labels.synthia_train_ids(ids)
