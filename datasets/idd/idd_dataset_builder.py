"""IDD Segmentation (https://idd.insaan.iiit.ac.in): Indian streets, in Cityscapes' classes."""

import dataclasses
import pathlib
import re

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError, nearest
from datasets import base, common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes

IMAGES, LABELS = 'leftImg8bit', 'gtFine'
PICTURE, LABEL_END = r'(.+)_leftImg8bit\.(png|jpe?g)', '_gtFine_labellevel3Ids.png'
COMPANIONS = ('_gtFine_polygons.json', '_gtFine_labelColors.png', '_gtFine_instanceIds.png')
COMPANIONS += tuple(f'_gtFine_labellevel{k}Ids.png' for k in (1, 2, 4))
COMPANIONS += ('_gtFine_labelIds.png', '_gtFine_labelCsIds.png')
# Of IDD's training part: the labels of its own test part are not public.
TEST_SCENES = frozenset(
  (
    *(265, 431, 175, 528, 39, 137, 538, 499, 7, 376, 37, 209, 306, 413, 380, 374, 472, 523, 446),
    *(121, 171, 488, 278, 411, 312, 453, 110, 285, 46, 158, 426, 544, 230, 41, 520, 322, 95),
  )
)
CITATION = 'Varma et al., IDD, WACV 2019, arXiv 1811.10200'


def unknown_ids(text: str) -> tuple[int, ...]:
  """'8,16' -> ids. Raises UserError for one that is no id, or that of a class."""
  given = [part.strip() for part in text.split(',') if part.strip()]
  for part in given:
    known = part.isdecimal() and int(part) in labels.IDD_UNSCORED
    if not known:
      named = ', '.join(f'{k} {v}' for k, v in labels.IDD_UNSCORED.items())
      if part.isdecimal() and int(part) in labels.IDD_SCORED:
        what = f'{part} is {labels.CLASS_NAMES[labels.IDD_SCORED[int(part)]]}, a known class'
      else:
        what = f'{part!r} is no level-3 id\n{nearest(part, map(str, labels.IDD_UNSCORED))}'
      raise UserError(f'--unknown {text}: {what}\n  ids that may be unknown: {named}')
  return tuple(sorted({int(part) for part in given}))


@dataclasses.dataclass
class Config(base.Config):
  scale: base.Scale = 0.5
  """Share of their size that images are stored at."""
  unknown: str = ''
  """Level-3 ids that are unknown objects, such as 8,16."""

  def check(self):
    if self.unknown and not unknown_ids(self.unknown):
      raise UserError(f'--unknown cannot be {self.unknown!r}\n  expected ids such as 8,16')


class Builder(base.Builder):
  """IDD's streets, of several sizes, with the level-3 labels that IDD's own scripts make.

  Splits as in arXiv 2303.11298: `test` is 37 scenes of the training part, `calibration` the
  validation part; `train` is what is left. Ids of `unknown`, such as 8,16, are unknown objects.
  """

  TRAINING = 'reliability_cityscapes'
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    leftImg8bit/{train,val}/SCENE/NAME_leftImg8bit.png or .jpg and
    gtFine/{train,val}/SCENE/NAME_gtFine_labellevel3Ids.png: IDD Segmentation
    (https://idd.insaan.iiit.ac.in), unpacked, after IDD's scripts have made its label files"""
  BUILDER_CONFIGS = [
    Config(description='Half size, mostly 360x640'),
    Config(scale=1.0, description='Full size'),
    Config(scale=1.0, unknown='8,16,17,23', description='As arXiv 2303.11298 tests on'),
  ]

  def about(self):
    return cityscapes.about(
      unknown_label=labels.UNKNOWN_LABEL if self.builder_config.unknown else None,
      licence="IDD's licence: research use, no redistribution",
      citation=CITATION,
    )

  def splits(self, source):
    splits: dict[str, list[pathlib.Path]] = {'train': [], 'calibration': [], 'test': []}
    for part in ('train', 'val'):
      for path in pictures(source / IMAGES / part, source / LABELS / part, self.problems):
        inside = 'test' if path.parent.name in map(str, TEST_SCENES) else 'train'
        splits['calibration' if part == 'val' else inside].append(path)
    layout.unread(source, (IMAGES, LABELS), self.problems)
    layout.unread(source / IMAGES, ('train', 'val'), self.problems)
    layout.unread(source / LABELS, ('train', 'val'), self.problems)
    if not any(splits.values()):
      self.problems.stop_if_any(source)
      raise UserError(
        f'{source / IMAGES} holds no {{train,val}}/SCENE/NAME_leftImg8bit.png or .jpg\n'
        f'  expected {IMAGES}/ and {LABELS}/ side by side; see docs/data.md'
      )
    return splits

  def example(self, path):
    part, scene = path.parts[-3:-1]
    stem = re.fullmatch(PICTURE, path.name)[1]
    label_path = self.source / LABELS / part / scene / f'{stem}{LABEL_END}'
    config, group = self.builder_config, f'{part}/{scene}'
    maps = [(label_path, read_label(label_path, unknown_ids(config.unknown), self.problems))]
    for image, label in cityscapes.scaled(path, maps, config.scale, self.problems):
      yield f'{group}/{stem}', group, image, label[None]


def pictures(
  folder: pathlib.Path, gt: pathlib.Path, problems: common.Problems
) -> list[pathlib.Path]:
  """SCENE/NAME_leftImg8bit.png or .jpg in the order of scene and name; others are problems.

  So are labels in `gt`, the labels' part, that have no image.
  """
  fits = lambda name: re.fullmatch(PICTURE, name)
  found: dict[tuple[str, str], pathlib.Path] = {}
  for path in layout.images(folder, fits, 'SCENE/NAME_leftImg8bit.png or .jpg', problems):
    name = fits(path.name)[1]
    if found.setdefault((path.parent.name, name), path) != path:
      problems.add(path, f'is there twice, also as {found[path.parent.name, name].name}')
  missing = lambda of: folder / of[0] / f'{of[1]}_leftImg8bit.png'
  layout.labels(gt, (LABEL_END,), found, missing, problems, beside=COMPANIONS)
  return list(found.values())


def read_label(
  path: pathlib.Path, unknown: tuple[int, ...], problems: common.Problems
) -> np.ndarray | None:
  """Train ids 0 to 18, 254 for ids in `unknown`, 255 for what is not scored."""
  ids = common.read_ids(path, problems)
  if ids is None or not cityscapes.in_range(path, ids, labels.IDD_IDS, problems):
    return None
  return labels.idd_train_ids(ids, unknown)
