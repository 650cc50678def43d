"""IDD Segmentation (https://idd.insaan.iiit.ac.in): Indian streets, in Cityscapes' classes."""

import dataclasses
import functools
import pathlib

from car_jax.data import labels
from car_jax.datasets import base, common, layout
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.errors import UserError, nearest

IMAGES, LABELS = 'leftImg8bit', 'gtFine'
ENDS = ('_leftImg8bit.png', '_leftImg8bit.jpg', '_leftImg8bit.jpeg')
LABEL_ENDS = ('_gtFine_labellevel3Ids.png',)
COMPANIONS: tuple[str, ...] = ('_gtFine_polygons.json', '_gtFine_labelColors.png')
COMPANIONS += tuple(f'_gtFine_labellevel{k}Ids.png' for k in (1, 2, 4))
COMPANIONS += ('_gtFine_instanceIds.png', '_gtFine_labelIds.png', '_gtFine_labelCsIds.png')
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
class Config(base.ScaledConfig):
  scale: base.Scale = 0.5
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
  HOMEPAGE = 'https://idd.insaan.iiit.ac.in'
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    leftImg8bit/{{train,val}}/SCENE/NAME_leftImg8bit.png or .jpg and
    gtFine/{{train,val}}/SCENE/NAME_gtFine_labellevel3Ids.png: IDD Segmentation
    ({HOMEPAGE}), unpacked, after IDD's scripts have made its label files"""
  BUILDER_CONFIGS = [
    Config(description='Half size, mostly 360x640'),
    Config(scale=1.0, description='Full size'),
    Config(scale=1.0, unknown='8,16,17,23', description='As arXiv 2303.11298 tests on'),
  ]

  def about(self):
    return cityscapes.about(
      groups='scenes',
      unknown_label=labels.UNKNOWN_LABEL if self.builder_config.unknown else None,
      licence="IDD's licence: research use, no redistribution",
      citation=CITATION,
    )

  def splits(self, source):
    splits: dict[str, list[pathlib.Path]] = {'train': [], 'calibration': [], 'test': []}
    for part in ('train', 'val'):
      folders = source / IMAGES / part, source / LABELS / part
      for path in layout.paired(*folders, ENDS, LABEL_ENDS, self.problems, beside=COMPANIONS):
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
    part, (scene, stem) = path.parts[-3], layout.key(path, ENDS)
    label_path = self.source / LABELS / part / scene / f'{stem}{LABEL_ENDS[0]}'
    config, group = self.builder_config, f'{part}/{scene}'
    ids = common.read_ids(label_path, self.problems)
    convert = functools.partial(labels.idd_train_ids, unknown=unknown_ids(config.unknown))
    ids = cityscapes.train_ids(label_path, ids, labels.IDD_IDS, convert, self.problems)
    for image, label in cityscapes.scaled(path, [(label_path, ids)], config.scale, self.problems):
      yield f'{group}/{stem}', group, image, label[None]
