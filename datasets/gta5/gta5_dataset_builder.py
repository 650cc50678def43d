"""GTA5 (https://download.visinf.tu-darmstadt.de/data/from_games): streets of a game, labelled."""

import pathlib

import numpy as np
from PIL import Image

from car_jax.data import labels
from car_jax.datasets import base, common, layout
from car_jax.datasets.base import ScaledConfig as Config
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS, DIGITS = 'images', 'labels', 5
FRAMES = range(1, 10001)  # of 24,966: what DA-SAC (arXiv 2105.00097) trains and validates on
SIZE = (1914, 1052)  # columns and rows; a few frames come larger, some with labels unlike them
VALIDATION = pathlib.Path(__file__).with_name('validation.txt')
PLATE = f'id {labels.GTA5_LICENCE_PLATE}, a licence plate, which is no class of Cityscapes'


class Builder(base.Builder):
  """GTA5's frames and their labels, palette pictures of Cityscapes' label ids.

  Every frame is first made 1914x1052, then `scale` of it. Splits as in DA-SAC (arXiv 2105.00097):
  of the first 10,000 frames 1,000 are `validation`, the others `train`.
  """

  TRAINING = 'sac_gta5'
  ABOUT = cityscapes.about(
    licence="GTA5's terms: research and education, no redistribution",
    citation='Richter et al., Playing for data, ECCV 2016, arXiv 1608.02192',
  )
  HOMEPAGE = 'https://download.visinf.tu-darmstadt.de/data/from_games'
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    images/NNNNN.png and labels/NNNNN.png: all parts of the download
    ({HOMEPAGE}), unpacked into one folder"""
  BUILDER_CONFIGS = [
    Config(description='1914x1052, as DA-SAC trains on'),
    Config(scale=0.5, description='957x526, a quarter of the space'),
  ]

  def splits(self, source):
    frames = common.numbered(source / IMAGES, DIGITS, FRAMES, self.problems)
    layout.unread(source, (IMAGES, LABELS), self.problems)
    names = {path.name for path in frames.values()}
    for label in layout.unpaired(source / LABELS, names, self.problems):
      self.problems.note(label, f'label of no frame that is read from {source / IMAGES}')
    chosen = common.listed_numbers(VALIDATION)
    return {
      'train': [path for number, path in frames.items() if number not in chosen],
      'validation': [path for number, path in frames.items() if number in chosen],
    }

  def example(self, path):
    image = common.read_image(path, self.problems, colour=True)
    label_path = self.source / LABELS / path.name
    ids = common.read_ids(label_path, self.problems)
    ids = cityscapes.train_ids(label_path, ids, labels.GTA5_IDS, np.asarray, self.problems)
    if image is None or ids is None:
      return
    (h, w), (rows, columns) = image.shape[:2], ids.shape
    if max(h, rows) > 2 * min(h, rows) or max(w, columns) > 2 * min(w, columns):
      self.problems.add(label_path, f'{columns}x{rows} pixels, its image {path} {w}x{h}')
      return
    if (ids == labels.GTA5_LICENCE_PLATE).any():
      self.problems.note(label_path, f'label with {PLATE}: ignored')
    scale = self.builder_config.scale
    image = cityscapes.image_scaled(of_one_size(image, Image.Resampling.BILINEAR), scale)
    label = labels.scored_train_ids(of_one_size(ids, Image.Resampling.NEAREST))
    yield path.stem, path.stem, image, cityscapes.nearest_scaled(label, scale)[None]


def of_one_size(x: np.ndarray, how: Image.Resampling) -> np.ndarray:
  return np.asarray(Image.fromarray(x).resize(SIZE, how))
