"""ACDC (https://acdc.vision.ee.ethz.ch): Cityscapes' classes in fog, at night, in rain and snow."""

import functools
import pathlib
from collections.abc import Iterator

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError
from datasets import common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

CONDITIONS = ('fog', 'night', 'rain', 'snow')
SPLITS = {'train': 'test', 'val': 'calibration'}  # ACDC's folder -> what it serves for here
IMAGES, LABELS = ('rgb_anon', 'rgb_anon_trainvaltest'), ('gt', 'gt_trainval')  # as is, or within
IMAGE_END, LABEL_END = '_rgb_anon.png', '_gt_labelIds.png'
COMPANIONS = ('_gt_labelTrainIds.png', '_gt_labelColor.png', '_gt_invIds.png', '_gt_invGray.png')
CITATION = 'Sakaridis et al., ACDC: the adverse conditions dataset, ICCV 2021, arXiv 2104.13395'


class Builder(common.Builder):
  """SOURCE/rgb_anon/CONDITION/{train,val}/SCENE/NAME_rgb_anon.png with SOURCE/gt/CONDITION/
  {train,val}/SCENE/NAME_gt_labelIds.png, perhaps within rgb_anon_trainvaltest/ and gt_trainval/.

  The splits are those of a test of reliability (arXiv 2303.11298): for each condition, what was
  made for training is `CONDITION_test` and what was made for validation `CONDITION_calibration`.
  """

  CONFIG = 'reliability_cityscapes'
  OPTIONS = {'scale': common.scale(0.25)}

  def contents(self, options, problems):
    images, gt = (root(options.source, *names) for names in (IMAGES, LABELS))
    splits = {}
    for condition in CONDITIONS:
      for part, use in SPLITS.items():
        paths = pictures(images / condition / part, gt / condition / part, problems)
        if paths:
          make = functools.partial(examples, gt, paths, options.values['scale'], problems)
          splits[f'{condition}_{use}'] = len(paths), make
    layout.unread(images, CONDITIONS, problems)
    for condition in CONDITIONS:
      layout.unread(images / condition, SPLITS, problems)
    if not splits:
      problems.stop_if_any(options.source)
      raise UserError(
        f'{images} holds no CONDITION/{{train,val}}/SCENE/NAME{IMAGE_END}\n'
        f'  conditions: {", ".join(CONDITIONS)}; see docs/data.md'
      )
    licence = "ACDC's licence: non-commercial research, no redistribution"
    return cityscapes.contents(splits, licence=licence, citation=CITATION)


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
  found = layout.images(folder, fits, f'SCENE/NAME{IMAGE_END}', problems)
  there = {(p.parent.name, p.name.removesuffix(IMAGE_END)) for p in found}
  missing = lambda of: folder / of[0] / f'{of[1]}{IMAGE_END}'
  layout.labels(gt, (LABEL_END,), there, missing, problems, beside=COMPANIONS)
  return found


def examples(
  gt: pathlib.Path, paths: list[pathlib.Path], scale: float, problems: common.Problems
) -> Iterator[common.Example]:
  for path in paths:
    condition, part, scene = path.parts[-4:-1]
    stem = path.name.removesuffix(IMAGE_END)
    where = gt / condition / part / scene / f'{stem}{LABEL_END}'
    maps = [(where, read_label(where, problems))]
    for image, label in cityscapes.scaled(path, maps, scale, problems):
      group = f'{condition}/{scene}'
      yield f'{group}/{stem}', group, image, label[None]


def read_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0 to 18, and 255 for what is not scored."""
  found = common.read_ids(path, problems)
  if found is None or not cityscapes.in_range(path, found, labels.ACDC_IDS, problems):
    return None
  return labels.scored_train_ids(found)
