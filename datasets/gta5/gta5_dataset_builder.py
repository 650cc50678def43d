"""GTA5 (https://download.visinf.tu-darmstadt.de/data/from_games): streets of a game, labelled."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from car_jax.data import labels
from datasets import common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS, DIGITS = 'images', 'labels', 5
FRAMES = range(1, 10001)  # of 24,966: what DA-SAC (arXiv 2105.00097) trains and validates on
SIZE = (1914, 1052)  # columns and rows; a few frames come larger, some with labels unlike them
VALIDATION = pathlib.Path(__file__).with_name('validation.txt')
PLATE = f'id {labels.GTA5_LICENCE_PLATE}, a licence plate, which is no class of Cityscapes'
CITATION = 'Richter et al., Playing for data, ECCV 2016, arXiv 1608.02192'


class Builder(common.Builder):
  """SOURCE/images/NNNNN.png and SOURCE/labels/NNNNN.png, palette pictures of Cityscapes' label ids.

  Every frame is first made 1914x1052, then `--scale` of it. Splits as in DA-SAC (arXiv 2105.00097):
  of the first 10,000 frames 1,000 are `validation`, the others `train`.
  """

  CONFIG = 'sac_gta5'
  OPTIONS = {'scale': common.scale(1.0)}

  def contents(self, options, problems):
    source, chosen = options.source, common.listed_numbers(VALIDATION)
    found: dict[str, list[pathlib.Path]] = {'train': [], 'validation': []}
    there = common.numbered(source / IMAGES, DIGITS, FRAMES, problems)
    layout.unread(source, (IMAGES, LABELS), problems)
    for label in layout.unpaired(source / LABELS, {p.name for p in there.values()}, problems):
      problems.note(label, f'label of no frame that is read from {source / IMAGES}')
    for number, path in there.items():
      found['validation' if number in chosen else 'train'].append(path)
    make = functools.partial(examples, source / LABELS, options.values['scale'], problems)
    return cityscapes.contents(
      {s: (len(paths), functools.partial(make, paths)) for s, paths in found.items() if paths},
      licence="GTA5's terms: research and education, no redistribution",
      citation=CITATION,
    )


def examples(
  gt: pathlib.Path, scale: float, problems: common.Problems, paths: list[pathlib.Path]
) -> Iterator[common.Example]:
  for path in paths:
    image = common.read_image(path, problems, colour=True)
    where = gt / path.name
    ids = common.read_ids(where, problems)
    if ids is None or not cityscapes.in_range(where, ids, labels.GTA5_IDS, problems):
      continue
    if image is None or not alike(path, image, where, ids, problems):
      continue
    if (ids == labels.GTA5_LICENCE_PLATE).any():
      problems.note(where, f'label with {PLATE}: ignored')
    image = cityscapes.image_scaled(of_one_size(image, Image.Resampling.BILINEAR), scale)
    label = labels.scored_train_ids(of_one_size(ids, Image.Resampling.NEAREST))
    yield path.stem, path.stem, image, cityscapes.nearest_scaled(label, scale)[None]


def alike(
  path: pathlib.Path,
  image: np.ndarray,
  where: pathlib.Path,
  ids: np.ndarray,
  problems: common.Problems,
) -> bool:
  """Whether a frame and its label are of about one size; else the problem is noted."""
  (h, w), (rows, columns) = image.shape[:2], ids.shape
  good = max(h, rows) <= 2 * min(h, rows) and max(w, columns) <= 2 * min(w, columns)
  if not good:
    problems.add(where, f'{columns}x{rows} pixels, its image {path} {w}x{h}')
  return good


def of_one_size(x: np.ndarray, how: Image.Resampling) -> np.ndarray:
  return np.asarray(Image.fromarray(x).resize(SIZE, how))
