"""Cityscapes (https://www.cityscapes-dataset.com) and folders that are laid out like it."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from car_jax.data import labels
from car_jax.errors import UserError
from datasets import common

IMAGES, LABELS, IMAGE_END = 'leftImg8bit', 'gtFine', '_leftImg8bit.png'
# The training cities that CAR and MoSE validate on; the official validation split is their test.
VALIDATION_CITIES = ('darmstadt', 'monchengladbach', 'ulm')
LABEL_IDS, TRAIN_IDS = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'
CITATION = 'Cordts et al., The Cityscapes dataset for semantic urban scene understanding, CVPR 2016'


class Builder(common.Builder):
  """SOURCE/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png and SOURCE/gtFine/{train,val}/CITY/
  NAME_gtFine_labelIds.png or _labelTrainIds.png, at `--scale` of their size.

  Images by an antialiased bilinear filter, labels by the nearest pixel. `--black-box FOLDER` (or
  SOURCE/black_box, if there) holds predictions as label ids, {train,val}/CITY/NAME_*.png or .npy.
  """

  def contents(self, options, problems):
    source, scale = options.source, options.values['scale']
    boxes = black_boxes(options.values['black_box'], source)
    found: dict[str, list[pathlib.Path]] = {split: [] for split in common.SPLITS}
    for path in pictures(source):
      city, part = path.parent.name, path.parent.parent.name
      inside = 'validation' if city in VALIDATION_CITIES else 'train'
      found['test' if part == 'val' else inside].append(path)
    make = functools.partial(examples, source, boxes, scale, problems)
    return contents(
      {s: (len(paths), functools.partial(make, paths)) for s, paths in found.items() if paths},
      black_box=boxes is not None,
      licence='Cityscapes licence: research use, no redistribution',
      citation=CITATION,
    )


def contents(splits: dict[str, Any], **more: Any) -> common.Contents:
  """Of any data set with Cityscapes' 19 classes, one label per image."""
  return common.Contents(
    class_names=labels.CLASS_NAMES[: labels.SCORED],
    readers=1,
    splits=splits,
    palette=labels.PALETTE[: labels.SCORED],
    ignore_label=labels.IGNORED_TRAIN_ID,
    **more,
  )


def pictures(source: pathlib.Path) -> list[pathlib.Path]:
  """All images of train and val, in the order of city and name. Raises UserError."""
  for part in ('train', 'val'):
    if not (source / IMAGES / part).is_dir():
      raise UserError(
        f'{source / IMAGES / part} is not there\n'
        f'  expected {IMAGES}/train, {IMAGES}/val and {LABELS}/ beside; see docs/data.md'
      )
  found = [p for part in ('train', 'val') for p in sorted((source / IMAGES / part).glob('*/*'))]
  if odd := [p for p in found if not p.name.endswith(IMAGE_END)]:
    raise UserError(f'{odd[0]}: expected CITY/NAME{IMAGE_END}\n  move other files elsewhere')
  if not found:
    raise UserError(f'{source / IMAGES} holds no CITY/NAME{IMAGE_END}')
  return found


def black_boxes(given: str, source: pathlib.Path) -> pathlib.Path | None:
  folder = pathlib.Path(given) if given else source / 'black_box'
  if given and not folder.is_dir():
    raise UserError(f'--black-box {given}: no such folder')
  return folder if folder.is_dir() else None


def examples(
  source: pathlib.Path,
  boxes: pathlib.Path | None,
  scale: float,
  problems: common.Problems,
  paths: list[pathlib.Path],
) -> Iterator[common.Example]:
  for path in paths:
    stem = path.name.removesuffix(IMAGE_END)
    place = pathlib.Path(path.parent.parent.name) / path.parent.name
    image = common.read_image(path, problems, colour=True)
    label = read_label(source / LABELS / place / stem, problems)
    maps = [(source / LABELS / place / stem, label)]
    if boxes is not None:
      maps.append((boxes / place / stem, read_black_box(boxes / place, stem, problems)))
    if image is None or any(x is None for _, x in maps):
      continue
    sizes = [(p, x.shape[::-1]) for p, x in maps if x.shape != image.shape[:2]]
    for odd, (w, h) in sizes:
      problems.add(odd, f'{w}x{h} pixels, its image {image.shape[1]}x{image.shape[0]}')
    if not sizes:
      small = [nearest_scaled(x, scale) for _, x in maps]
      name = f'{path.parent.name}/{stem}'
      yield name, name, image_scaled(image, scale), small[0][None], *small[1:]


def read_label(stem: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0..18 and 255 of NAME, from its label ids or, without these, its train ids."""
  ids, trained = (stem.with_name(stem.name + end) for end in (LABEL_IDS, TRAIN_IDS))
  if ids.is_file() or not trained.is_file():
    return converted(ids, common.read_ids(ids, problems), problems)
  found = common.read_ids(trained, problems)
  if found is None or _in_range(trained, found, (*range(labels.SCORED), 255), problems):
    return found
  return None


def converted(
  path: pathlib.Path, found: np.ndarray | None, problems: common.Problems
) -> np.ndarray | None:
  """Label ids 0..33 -> train ids; None, with the problem noted, for another id."""
  known = range(len(labels.LABEL_ID_TO_TRAIN_ID))
  if found is None or not _in_range(path, found, known, problems):
    return None
  kept = labels.train_ids(found)
  return np.where(kept < labels.SCORED, kept, labels.IGNORED_TRAIN_ID).astype(np.uint8)


def _in_range(path, found: np.ndarray, known: Any, problems: common.Problems) -> bool:
  odd = sorted({int(v) for v in np.unique(found)} - set(known))
  if odd:
    extra = ' and 255' if 255 in known else ''
    problems.add(
      path, f'id {odd[0]} is no class; expected 0 to {len(known) - 1 - bool(extra)}{extra}'
    )
  return not odd


def read_black_box(folder: pathlib.Path, stem: str, problems: common.Problems) -> np.ndarray | None:
  """A prediction in label ids, as train ids."""
  files = sorted(p for p in folder.glob(f'{stem}*') if p.suffix in ('.png', '.npy'))
  if len(files) != 1:
    problems.add(folder / f'{stem}*', f'{len(files)} black-box predictions; expected one')
    return None
  (path,) = files
  if path.suffix == '.png':
    return converted(path, common.read_ids(path, problems), problems)
  try:
    found = np.load(path)
  except (ValueError, OSError, EOFError) as e:
    problems.add(path, f'cannot be read ({e})')
    return None
  if found.ndim != 2 or (found != np.round(found)).any():
    problems.add(path, f'holds {found.dtype} {found.shape}; expected whole numbers [H, W]')
    return None
  return converted(path, found.astype(np.int64), problems)


def image_scaled(image: np.ndarray, scale: float) -> np.ndarray:
  h, w = (round(n * scale) for n in image.shape[:2])
  small = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  return np.asarray(small)


def nearest_scaled(x: np.ndarray, scale: float) -> np.ndarray:
  """The pixel at the centre of each new one, as Pillow's nearest filter takes it."""
  h, w = (round(n * scale) for n in x.shape)
  rows, columns = ((np.arange(n) + 0.5) * s // n for n, s in zip((h, w), x.shape, strict=True))
  return x[rows.astype(int)[:, None], columns.astype(int)]
