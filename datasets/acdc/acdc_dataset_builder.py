"""ACDC (https://acdc.vision.ee.ethz.ch): Cityscapes' classes in fog, at night, in rain and snow."""

import dataclasses
import pathlib

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError
from datasets import base, common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

CONDITIONS = ('fog', 'night', 'rain', 'snow')
SPLITS = {'train': 'test', 'val': 'calibration'}  # ACDC's folder -> what it serves for here
IMAGES, LABELS = ('rgb_anon', 'rgb_anon_trainvaltest'), ('gt', 'gt_trainval')  # as is, or within
IMAGE_END, LABEL_END = '_rgb_anon.png', '_gt_labelIds.png'
COMPANIONS = ('_gt_labelTrainIds.png', '_gt_labelColor.png', '_gt_invIds.png', '_gt_invGray.png')
CITATION = 'Sakaridis et al., ACDC: the adverse conditions dataset, ICCV 2021, arXiv 2104.13395'


@dataclasses.dataclass
class Config(base.Config):
  scale: base.Scale = 0.25
  """Share of their size that images are stored at."""


class Builder(base.Builder):
  """ACDC's images of adverse conditions, in Cityscapes' classes, at `scale` of their size.

  The splits are those of a test of reliability (arXiv 2303.11298): for each condition, what was
  made for training is `CONDITION_test` and what was made for validation `CONDITION_calibration`.
  """

  TRAINING = 'reliability_cityscapes'
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    rgb_anon/CONDITION/{train,val}/SCENE/NAME_rgb_anon.png and
    gt/CONDITION/{train,val}/SCENE/NAME_gt_labelIds.png, perhaps within rgb_anon_trainvaltest/ and
    gt_trainval/: ACDC's archives (https://acdc.vision.ee.ethz.ch), unpacked side by side"""
  BUILDER_CONFIGS = [
    Config(description="270x480, about Cityscapes' scale at its own default"),
    Config(scale=1.0, description='1080x1920, as arXiv 2303.11298 tests on'),
  ]

  def about(self):
    licence = "ACDC's licence: non-commercial research, no redistribution"
    return cityscapes.about(licence=licence, citation=CITATION)

  def splits(self, source):
    images, self.labels = (root(source, *names) for names in (IMAGES, LABELS))
    splits = {
      f'{condition}_{use}': pictures(
        images / condition / part, self.labels / condition / part, self.problems
      )
      for condition in CONDITIONS
      for part, use in SPLITS.items()
    }
    layout.unread(images, CONDITIONS, self.problems)
    for condition in CONDITIONS:
      layout.unread(images / condition, SPLITS, self.problems)
    if not any(splits.values()):
      self.problems.stop_if_any(source)
      raise UserError(
        f'{images} holds no CONDITION/{{train,val}}/SCENE/NAME{IMAGE_END}\n'
        f'  conditions: {", ".join(CONDITIONS)}; see docs/data.md'
      )
    return splits

  def example(self, path):
    condition, part, scene = path.parts[-4:-1]
    stem = path.name.removesuffix(IMAGE_END)
    label_path = self.labels / condition / part / scene / f'{stem}{LABEL_END}'
    maps = [(label_path, read_label(label_path, self.problems))]
    scale, group = self.builder_config.scale, f'{condition}/{scene}'
    for image, label in cityscapes.scaled(path, maps, scale, self.problems):
      yield f'{group}/{stem}', group, image, label[None]


def root(source: pathlib.Path, name: str, within: str) -> pathlib.Path:
  """Raises UserError where neither layout is there."""
  for folder in (source / name, source / within / name):
    if folder.is_dir():
      return folder
  raise UserError(
    f'{source / name} is not there, nor {source / within / name}\n'
    f'  expected {IMAGES[0]}/ and {LABELS[0]}/ side by side; see docs/data.md'
  )


def pictures(
  folder: pathlib.Path, gt: pathlib.Path, problems: common.Problems
) -> list[pathlib.Path]:
  """SCENE/NAME_rgb_anon.png in the order of scene and name; other files are problems.

  So are labels in `gt`, the labels' part, that have no image.
  """
  fits = lambda name: name.endswith(IMAGE_END)
  paths = layout.images(folder, fits, f'SCENE/NAME{IMAGE_END}', problems)
  there = {(p.parent.name, p.name.removesuffix(IMAGE_END)) for p in paths}
  missing = lambda of: folder / of[0] / f'{of[1]}{IMAGE_END}'
  layout.labels(gt, (LABEL_END,), there, missing, problems, beside=COMPANIONS)
  return paths


def read_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0 to 18, and 255 for what is not scored."""
  ids = common.read_ids(path, problems)
  if ids is None or not cityscapes.in_range(path, ids, labels.ACDC_IDS, problems):
    return None
  return labels.scored_train_ids(ids)
