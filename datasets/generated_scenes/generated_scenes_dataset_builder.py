"""Generated scenes in other domains: of car-jax generate, or laid out as GenVal's are."""

import collections
import dataclasses
import pathlib
import re

from car_jax.datasets import base, common
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from car_jax.errors import UserError
from car_jax.generate import sets
from car_jax.generate.records import ACCEPTED, Kind
from car_jax.generate.sets import Item

CITATION = 'Loiseau et al., Reliability in semantic segmentation: can we use synthetic data?, '
CITATION += 'ECCV 2024, arXiv 2312.09231'
LICENCE = 'that of the scenes and of the model that generated from them'


@dataclasses.dataclass
class Config(base.ScaledConfig):
  UNNAMED = ('variant',)
  variant: str = ''
  """Name of the prepared data: letters, digits, - and _."""

  def default_name(self):
    rest = super().default_name()
    return rest if not self.variant else self.variant + ('' if rest == 'default' else f'-{rest}')

  def check(self):
    base.check_variant(self.variant)


class Builder(base.Builder):
  """Scenes that were generated in other domains, with the labels that they were made for.

  They have `scale` of their size; each domain is a split.

  Images that the user rejected by eye are left out and counted. The group of an image is its scene:
  one scene may be there several times, and in several domains.
  """

  TRAINING = 'reliability_generated'
  ABOUT = cityscapes.about(groups='scenes', licence=LICENCE, citation=CITATION)
  HOMEPAGE = 'https://arxiv.org/abs/2312.09231'
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    DOMAIN/leftImg8bit/val/CITY/DOMAIN_N_NAME_leftImg8bit.png and
    DOMAIN/gtFine/val/CITY/DOMAIN_N_NAME_labelIds.png: the --out of car-jax generate, or
    num_samples_N/SEED of GenVal's images"""
  BUILDER_CONFIGS = [Config(description='As they were generated')]

  def splits(self, source):
    by_domain = collections.defaultdict(list)
    for item in accepted(source, 'style', self.problems):
      by_domain[item.group].append(item)
    splits = {re.sub(r'\W+', '_', domain): items for domain, items in by_domain.items()}
    if len(splits) < len(by_domain):
      raise UserError(
        f'{source}: domains {", ".join(by_domain)} would be splits of the same names\n'
        '  rename one of their folders'
      )
    return splits

  def example(self, item):
    label = item.files['labels']
    ids = cityscapes.from_label_ids(label, common.read_ids(label, self.problems), self.problems)
    scale = self.builder_config.scale
    maps = [(label, ids)]
    for image, train_ids in cityscapes.scaled(item.picture, maps, scale, self.problems):
      yield item.id, item.scene, image, train_ids[None]


def accepted(source: pathlib.Path, kind: Kind, problems: common.Problems) -> list[Item]:
  """The images that count; those that do not are noted with their reasons. Raises UserError."""
  items = sets.read(source, [kind], problem=problems.add, note=problems.note)
  problems.stop_if_any(source)
  for item in items:
    if item.status != ACCEPTED:
      reason = f': {item.reason}' if item.reason else ''
      problems.note(item.id, f'{item.status}, left out{reason}')
  kept = [item for item in items if item.status == ACCEPTED]
  if not kept:
    what = 'scenes in other domains' if kind == 'style' else 'images with objects'
    there = f'{len(items):,}, none of them accepted' if items else 'none'
    raise UserError(f'{source}: of {what} it holds {there}\n  see docs/generate.md')
  return kept
