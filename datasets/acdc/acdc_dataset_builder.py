"""ACDC (https://acdc.vision.ee.ethz.ch): Cityscapes' classes in fog, at night, in rain and snow."""

import dataclasses
import pathlib

from car_jax.data.labels import ACDC_IDS, scored_train_ids
from car_jax.datasets import base, common, layout
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.errors import UserError

CONDITIONS = ('fog', 'night', 'rain', 'snow')
SPLITS = {'train': 'test', 'val': 'calibration'}  # ACDC's folder -> what it serves for here
IMAGES, LABELS = ('rgb_anon', 'rgb_anon_trainvaltest'), ('gt', 'gt_trainval')  # as is, or within
ENDS, LABEL_ENDS = ('_rgb_anon.png',), ('_gt_labelIds.png',)
COMPANIONS = ('_gt_labelTrainIds.png', '_gt_labelColor.png', '_gt_invIds.png', '_gt_invGray.png')
CITATION = 'Sakaridis et al., ACDC: the adverse conditions dataset, ICCV 2021, arXiv 2104.13395'


@dataclasses.dataclass
class Config(base.ScaledConfig):
  scale: base.Scale = 0.25


class Builder(base.Builder):
  """ACDC's images of adverse conditions, in Cityscapes' classes, at `scale` of their size.

  The splits are those of a test of reliability (arXiv 2303.11298): for each condition, what was
  made for training is `CONDITION_test` and what was made for validation `CONDITION_calibration`.
  """

  TRAINING = 'reliability_cityscapes'
  ABOUT = cityscapes.about(
    groups='scenes',
    licence="ACDC's licence: non-commercial research, no redistribution",
    citation=CITATION,
  )
  HOMEPAGE = 'https://acdc.vision.ee.ethz.ch'
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    rgb_anon/CONDITION/{{train,val}}/SCENE/NAME_rgb_anon.png and
    gt/CONDITION/{{train,val}}/SCENE/NAME_gt_labelIds.png, perhaps within rgb_anon_trainvaltest/ and
    gt_trainval/: ACDC's archives ({HOMEPAGE}), unpacked side by side"""
  BUILDER_CONFIGS = [
    Config(description="270x480, about Cityscapes' scale at its own default"),
    Config(scale=1.0, description='1080x1920, as arXiv 2303.11298 tests on'),
  ]

  def splits(self, source):
    images, self.labels = (root(source, *names) for names in (IMAGES, LABELS))
    splits = {
      f'{condition}_{use}': layout.paired(
        images / condition / part,
        self.labels / condition / part,
        ENDS,
        LABEL_ENDS,
        self.problems,
        beside=COMPANIONS,
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
        f'{images} holds no CONDITION/{{train,val}}/SCENE/NAME{ENDS[0]}\n'
        f'  conditions: {", ".join(CONDITIONS)}; see docs/data.md'
      )
    return splits

  def example(self, path):
    condition, part = path.parts[-4:-2]
    scene, stem = layout.key(path, ENDS)
    label_path = self.labels / condition / part / scene / f'{stem}{LABEL_ENDS[0]}'
    ids = common.read_ids(label_path, self.problems)
    ids = cityscapes.train_ids(label_path, ids, ACDC_IDS, scored_train_ids, self.problems)
    scale, group = self.builder_config.scale, f'{condition}/{scene}'
    for image, label in cityscapes.scaled(path, [(label_path, ids)], scale, self.problems):
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
