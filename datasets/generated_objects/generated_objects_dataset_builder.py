"""Scenes with generated unknown objects: of car-jax generate, or laid out as GenVal's."""

import dataclasses
import hashlib

import numpy as np

from car_jax.data import labels
from car_jax.datasets import base, common
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.datasets.generated_scenes import generated_scenes_dataset_builder as generated_scenes


@dataclasses.dataclass
class Config(generated_scenes.Config):
  pass


class Builder(base.Builder):
  """Scenes with an object of no known class, at `scale` of their size; its pixels are 254.

  An image is called OBJECT/N; the refined one is taken, where the set has it. Images without a
  mask, and those that the user rejected by eye, are left out and counted. The group of an image is
  its scene, where nothing names that recognised by its labels.
  """

  TRAINING = 'reliability_generated'
  ABOUT = cityscapes.about(
    groups='scenes',
    unknown_label=labels.UNKNOWN_LABEL,
    by_object=True,
    licence=generated_scenes.LICENCE,
    citation=generated_scenes.CITATION,
  )
  HOMEPAGE = generated_scenes.Builder.HOMEPAGE
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    with_positions/OBJECT/N.png and N_gt.png, masks/OBJECT/N_mask.png, and perhaps
    refined/OBJECT/N.png: the --out of car-jax generate, or ood_objects of GenVal's
    images"""
  BUILDER_CONFIGS = [Config(description='As they were generated')]

  def splits(self, source):
    return {'test': generated_scenes.accepted(source, 'ood', self.problems)}

  def example(self, item):
    label, place = item.files['labels'], item.files['mask']
    ids = cityscapes.from_label_ids(label, common.read_ids(label, self.problems), self.problems)
    mask = common.read_mask(place, self.problems)
    if mask is not None and not np.isin(mask, (0, 255)).all():
      self.problems.add(place, 'has other values than 0 and 255')
      return
    maps, scale = [(label, ids), (place, mask)], self.builder_config.scale
    for image, train_ids, there in cityscapes.scaled(item.picture, maps, scale, self.problems):
      if not there.any():
        self.problems.note(item.id, 'left out: its mask has no pixel')
        continue
      scene = item.scene or hashlib.sha256(train_ids.tobytes()).hexdigest()[:16]
      unknown = np.where(there > 0, np.uint8(labels.UNKNOWN_LABEL), train_ids)
      yield item.id, scene, image, unknown[None]
