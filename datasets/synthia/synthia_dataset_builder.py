"""SYNTHIA-RAND-CITYSCAPES (https://synthia-dataset.net): drawn streets in Cityscapes' classes."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from car_jax.data import labels
from datasets import common
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS, DIGITS = 'RGB', 'GT/LABELS', 7
FRAMES = range(9400)
VALIDATION = pathlib.Path(__file__).with_name('validation.txt')
WIDE = b'\x10\x02'  # a PNG's bit depth and colour type: 16 bits, three channels
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
  """Train ids of a three-channel 16-bit PNG; Pillow alone would keep the wrong byte of each id."""
  import cv2

  if common.open_picture(path, problems) is None:
    return None
  raw = path.read_bytes()
  if raw[24:26] != WIDE:
    problems.add(path, "is no PNG of three channels of 16 bits; take those of SYNTHIA's GT/LABELS")
    return None
  found = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)  # blue, green, red
  return labels.synthia_train_ids(found[..., 2])
