"""The 180x180 PNG crops around LIDC nodules that CAR and others train on (the 'v2' split)."""

import functools
import pathlib

import numpy as np

from car_jax.errors import UserError
from datasets import common, layout
from datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks

FOLDERS = {'train': 'train', 'validation': 'val', 'test': 'test'}
READERS = 4


class Builder(common.Builder):
  """Layout: lidc_crops_S/S/images/PATIENT/NAME.png and .../gt/PATIENT/NAME_l{0..3}.png."""

  def contents(self, options, problems):
    splits = {}
    for split, s in FOLDERS.items():
      root = next(
        (p for p in (options.source / f'lidc_crops_{s}' / s, options.source / s) if p.is_dir()),
        None,
      )
      if root is None:
        raise UserError(
          f'{options.source} holds no LIDC crops: neither lidc_crops_{s}/{s} nor {s} is there\n'
          '  expected the unpacked lidc_crops archives side by side; see docs/data.md'
        )
      layout.unread(root, ('images', 'gt'), problems)
      images = pictures(root, problems)
      if not images:
        problems.stop_if_any(options.source)
        raise UserError(f'{root / "images"} holds no PATIENT/NAME.png')
      splits[split] = len(images), functools.partial(self._examples, root, images, problems)
    return lidc_masks.contents(splits)

  def _examples(self, root: pathlib.Path, images, problems):
    for path in images:
      patient = path.parent.name
      masks = [root / 'gt' / patient / f'{path.stem}_l{reader}.png' for reader in range(READERS)]
      image = common.read_image(path, problems)
      labels = [common.read_mask(mask, problems) for mask in masks]
      if image is None or any(label is None for label in labels):
        continue
      if not self._check(path, image, list(zip(masks, labels, strict=True)), problems):
        continue
      yield f'{patient}/{path.stem}', patient, image, np.uint8(np.stack(labels) // 255)

  @staticmethod
  def _check(image_path, image, masks, problems) -> bool:
    before = len(problems.found)
    common.fits(image_path, image, masks, problems)
    for path, label in masks:
      if odd := sorted(set(np.unique(label).tolist()) - {0, 255}):
        problems.add(path, f'value {odd[0]} in a mask; expected 0 and 255')
    return len(problems.found) == before


def pictures(root: pathlib.Path, problems: common.Problems) -> list[pathlib.Path]:
  """images/PATIENT/NAME.png; other files there, and masks in gt/ of no such image, are problems."""
  fits = lambda name: name.endswith('.png')
  found = layout.images(root / 'images', fits, 'PATIENT/NAME.png', problems)
  there = {(p.parent.name, p.stem) for p in found}
  missing = lambda of: root / 'images' / of[0] / f'{of[1]}.png'
  ends = [f'_l{reader}.png' for reader in range(READERS)]
  layout.labels(root / 'gt', ends, there, missing, problems)
  return found
