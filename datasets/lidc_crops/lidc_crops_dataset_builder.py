"""The 180x180 PNG crops around LIDC nodules that CAR and others train on (the 'v2' split)."""

import pathlib
from typing import Any

import numpy as np

from car_jax.datasets import base, common, layout
from car_jax.datasets.base import Config
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks
from car_jax.errors import UserError

FOLDERS = {'train': 'train', 'validation': 'val', 'test': 'test'}
READERS = 4


class Builder(base.Builder):
  """Published crops around LIDC's nodules, with the masks of four radiologists; given splits."""

  ABOUT, HOMEPAGE = lidc_masks.ABOUT, lidc_masks.HOMEPAGE
  FOR_ACCELERATOR = True
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    lidc_crops_S/S/images/PATIENT/NAME.png and lidc_crops_S/S/gt/PATIENT/NAME_l0.png to _l3.png for
    each S of train, val and test, or S/ alone: the lidc_crops archives, unpacked side by side"""
  BUILDER_CONFIGS = [Config(description='180x180, as CAR trains on')]

  def splits(self, source):
    return {split: self._pictures(source, s) for split, s in FOLDERS.items()}

  def _pictures(self, source: pathlib.Path, s: str) -> list[pathlib.Path]:
    root = next((p for p in (source / f'lidc_crops_{s}' / s, source / s) if p.is_dir()), None)
    if root is None:
      raise UserError(
        f'{source} holds no LIDC crops: neither lidc_crops_{s}/{s} nor {s} is there\n'
        '  expected the unpacked lidc_crops archives side by side; see docs/data.md'
      )
    layout.unread(root, ('images', 'gt'), self.problems)
    ends = tuple(f'_l{reader}.png' for reader in range(READERS))
    folders = root / 'images', root / 'gt'
    images = layout.paired(*folders, ('.png',), ends, self.problems, scene='PATIENT')
    if not images:
      self.problems.stop_if_any(source)
      raise UserError(f'{root / "images"} holds no PATIENT/NAME.png')
    return images

  def example(self, path):
    root, patient = path.parents[2], path.parent.name
    mask_paths = [root / 'gt' / patient / f'{path.stem}_l{reader}.png' for reader in range(READERS)]
    image = common.read_image(path, self.problems)
    labels: list[Any] = [common.read_mask(mask_path, self.problems) for mask_path in mask_paths]
    if image is None or any(label is None for label in labels):
      return
    masks = list(zip(mask_paths, labels, strict=True))
    good = common.fits(path, image, masks, self.problems)
    for mask_path, label in masks:
      if odd := sorted(set(np.unique(label).tolist()) - {0, 255}):
        self.problems.add(mask_path, f'value {odd[0]} in a mask; expected 0 and 255')
        good = False
    if good:
      yield f'{patient}/{path.stem}', patient, image, np.uint8(np.stack(labels) // 255)
