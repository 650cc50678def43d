"""Cityscapes (https://www.cityscapes-dataset.com) and folders that are laid out like it."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from car_jax import files
from car_jax.data import augmentation, labels
from car_jax.errors import UserError, nearest, reading
from datasets import common, layout
from datasets.options import Option

IMAGES, LABELS, IMAGE_END = 'leftImg8bit', 'gtFine', '_leftImg8bit.png'
# The training cities that CAR and MoSE validate on; the official validation split is their test.
VALIDATION_CITIES = ('darmstadt', 'monchengladbach', 'ulm')
RELIABILITY_CITIES = {'frankfurt': 'test', 'lindau': 'calibration', 'munster': 'calibration'}
SPLIT_KINDS = ('ambiguity', 'reliability', 'adaptation')
SPLITS = ('train', 'val2', 'validation', 'calibration', 'test')
VAL2 = pathlib.Path(__file__).with_name('val2.txt')
PARTS = ('train', 'val', 'test')  # folders; test is read for --splits adaptation, where it is there
LABEL_IDS, TRAIN_IDS = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'
COMPANIONS = ('_gtFine_color.png', '_gtFine_instanceIds.png', '_gtFine_polygons.json')
COMPANIONS += ('_gtFine_instanceTrainIds.png', '_gtFine_panoptic.png')
CITATION = 'Cordts et al., The Cityscapes dataset for semantic urban scene understanding, CVPR 2016'


class Builder(common.Builder):
  """SOURCE/leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png and SOURCE/gtFine/{train,val}/CITY/
  NAME_gtFine_labelIds.png or _labelTrainIds.png, at `--scale` of their size.

  Images by an antialiased bilinear filter, labels by the nearest pixel. `--black-box FOLDER` (or
  SOURCE/black_box, if there) holds predictions as label ids, {train,val}/CITY/NAME_*.png or .npy.
  `--splits reliability` cuts the validation cities in two, as arXiv 2303.11298 does, and
  `--augmented N` adds N changed copies of each calibration image. `--splits adaptation` keeps the
  official ones: {train,val,test}, and val2, a part of train. There an image of test, or of train
  but not of val2, needs no label: without one all its pixels are ignored.
  """

  CONFIG = 'deeplabv3plus_cityscapes'
  OPTIONS = {
    'scale': common.scale(0.25),
    'black_box': Option('', "folder with another model's predictions; default SOURCE/black_box"),
    'splits': Option('ambiguity', 'which published splits', choices=SPLIT_KINDS),
    'augmented': Option(0, 'changed copies of each calibration image', 0, 1000),
  }

  @classmethod
  def check(cls, values):
    if values['augmented'] and values['splits'] != 'reliability':
      raise UserError(
        f'--augmented cannot be {values["augmented"]}\n'
        '  expected 0 or more, and with it --splits reliability'
      )

  def contents(self, options, problems):
    source, values = options.source, options.values
    boxes = black_boxes(values['black_box'], source)
    found: dict[str, list[pathlib.Path]] = {split: [] for split in SPLITS}
    place = adaptation_splits() if values['splits'] == 'adaptation' else None
    paths = pictures(source, PARTS if place else PARTS[:2], problems)
    unused_boxes(boxes, paths, problems)
    for path in paths:
      for split in place(path) if place else (split_of(path, values['splits']),):
        found[split].append(path)
    free = unlabelled(source, found) if place else frozenset()
    make = functools.partial(examples, source, boxes, values['scale'], problems, free)
    splits = {
      s: (len(paths), functools.partial(make, paths)) for s, paths in found.items() if paths
    }
    copies, originals = values['augmented'], found['calibration']
    if copies and originals:
      make = functools.partial(make, originals, copies)
      splits['calibration_augmented'] = copies * len(originals), make
    return contents(
      splits,
      black_box=boxes is not None,
      licence='Cityscapes licence: research use, no redistribution',
      citation=CITATION,
    )


def split_of(path: pathlib.Path, splits: str) -> str:
  """The split of an image for `--splits`. Raises UserError for a city that it does not know."""
  city, part = path.parent.name, path.parent.parent.name
  if part == 'train':
    return 'validation' if city in VALIDATION_CITIES else 'train'
  if splits == 'ambiguity':
    return 'test'
  if city not in RELIABILITY_CITIES:
    raise UserError(
      f'{path}: --splits reliability knows no city {city!r} in val\n'
      f'{nearest(city, RELIABILITY_CITIES)}'
    )
  return RELIABILITY_CITIES[city]


def adaptation_splits() -> Callable[[pathlib.Path], tuple[str, ...]]:
  """path -> its splits, of what DA-SAC (arXiv 2105.00097) adapts to, chooses and scores by.

  val2 is a part of train: its labels choose the snapshot, its images are adapted to.
  """
  chosen = val2_frames()
  official = {'train': ('train',), 'val': ('validation',), 'test': ('test',)}

  def place(path: pathlib.Path) -> tuple[str, ...]:
    part, frame = path.parent.parent.name, path.name.removesuffix(IMAGE_END)
    return official[part] + (('val2',) if part == 'train' and frame in chosen else ())

  return place


def val2_frames() -> frozenset[str]:
  """Names such as aachen_000000_000019. A sequence's annotated frame is the 19th unless told."""
  found = set()
  for line in VAL2.read_text().splitlines():
    if line.startswith('#'):
      continue
    city, *frames = line.split()
    for frame in frames:
      sequence, _, k = frame.partition(':')
      found.add(f'{city}_{int(sequence):06}_{int(k or 19):06}')
  return frozenset(found)


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


def pictures(
  source: pathlib.Path, parts: tuple[str, ...], problems: common.Problems
) -> list[pathlib.Path]:
  """All images of these parts, in the order of city and name; labels are compared with them.

  Raises UserError where a part or every image is missing.
  """
  for part in ('train', 'val'):
    if not (source / IMAGES / part).is_dir():
      raise UserError(
        f'{source / IMAGES / part} is not there\n'
        f'  expected {IMAGES}/train, {IMAGES}/val and {LABELS}/ beside; see docs/data.md'
      )
  form = f'CITY/NAME{IMAGE_END}'
  fits = lambda name: name.endswith(IMAGE_END)
  found = [p for part in parts for p in layout.images(source / IMAGES / part, fits, form, problems)]
  layout.unread(source, (IMAGES, LABELS, 'black_box'), problems)
  layout.unread(source / IMAGES, parts, problems)
  layout.unread(source / LABELS, parts, problems)
  if not found:
    problems.stop_if_any(source)
    raise UserError(f'{source / IMAGES} holds no {form}')
  for part in parts:
    home = source / IMAGES / part
    there = {key(p) for p in found if p.parent.parent == home}
    missing = lambda of, home=home: home / of[0] / f'{of[1]}{IMAGE_END}'
    ends, folder = (LABEL_IDS, TRAIN_IDS), source / LABELS / part
    layout.labels(folder, ends, there, missing, problems, beside=COMPANIONS)
  return found


def key(path: pathlib.Path) -> tuple[str, str]:
  """City and name of an image."""
  return path.parent.name, path.name.removesuffix(IMAGE_END)


def unused_boxes(
  folder: pathlib.Path | None, paths: list[pathlib.Path], problems: common.Problems
) -> None:
  """Notes black-box predictions of no image that is read."""
  if folder is None:
    return
  stems: dict[tuple[str, str], list[str]] = {}
  for path in paths:
    stems.setdefault(path.parts[-3:-1], []).append(key(path)[1])
  for box in common.files_under(folder, problems):
    if not any(is_box_of(box.name, stem) for stem in stems.get(box.parts[-3:-1], ())):
      problems.note(box, 'black-box prediction of no image that is read')


def unlabelled(
  source: pathlib.Path, found: dict[str, list[pathlib.Path]]
) -> frozenset[pathlib.Path]:
  """Images that have no label and need none.

  Says how many of train these are: a folder of labels that was forgotten looks the same.
  """
  there = {path for paths in found.values() for path in paths}
  need = {*found['val2'], *found['validation']}
  free = frozenset(p for p in there - need if not has_label(label_stem(source, p)))
  count = len(free.intersection(found['train']))
  if count:
    print(
      f'{count:,} of {len(found["train"]):,} images of train have no label: '
      'all their pixels are ignored',
      file=sys.stderr,
    )
  return free


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
  free: frozenset[pathlib.Path],
  paths: list[pathlib.Path],
  copies: int = 0,
) -> Iterator[common.Example]:
  """Every image once; or `copies` times, changed, all images of a city before the next copies.

  Those of `free` have no label.
  """
  if not copies:
    for path in paths:
      yield from example(source, boxes, scale, problems, free, path)
    return
  for city in sorted({path.parent.name for path in paths}):
    rng = np.random.RandomState(augmentation.SEED)  # anew for each city, as published
    change = functools.partial(augmentation.augmented, rng=rng)
    for k in range(copies):
      for path in paths:
        if path.parent.name == city:
          yield from example(source, boxes, scale, problems, free, path, change, f'_aug{k}')


def example(
  source: pathlib.Path,
  boxes: pathlib.Path | None,
  scale: float,
  problems: common.Problems,
  free: frozenset[pathlib.Path],
  path: pathlib.Path,
  change: Callable[[np.ndarray], np.ndarray] = lambda image: image,
  ending: str = '',
) -> Iterator[common.Example]:
  """One example, or none where a file is bad; the image is changed at its full size."""
  stem = path.name.removesuffix(IMAGE_END)
  place = pathlib.Path(path.parent.parent.name) / path.parent.name
  home = label_stem(source, path)
  maps = [(home, no_label(path, problems) if path in free else read_label(home, problems))]
  if boxes is not None:
    maps.append((boxes / place / stem, read_black_box(boxes / place, stem, problems)))
  name = f'{path.parent.name}/{stem}'
  for image, label, *box in scaled(path, maps, scale, problems, change):
    yield f'{name}{ending}', name, image, label[None], *box


def scaled(
  path: pathlib.Path,
  maps: list[tuple[pathlib.Path, np.ndarray | None]],
  scale: float,
  problems: common.Problems,
  change: Callable[[np.ndarray], np.ndarray] = lambda image: image,
) -> Iterator[list[np.ndarray]]:
  """The image and its maps [H, W] at `scale`, once; nothing, with the problems noted, if bad."""
  image = common.read_image(path, problems, colour=True)
  if image is None or any(x is None for _, x in maps):
    return
  if common.fits(path, image, maps, problems):
    yield [image_scaled(change(image), scale), *(nearest_scaled(x, scale) for _, x in maps)]


def label_stem(source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """SOURCE/gtFine/PART/CITY/NAME of an image: what the names of its label files begin with."""
  place = path.parent.relative_to(source / IMAGES)
  return source / LABELS / place / path.name.removesuffix(IMAGE_END)


def has_label(stem: pathlib.Path) -> bool:
  return any(os.path.lexists(stem.with_name(stem.name + end)) for end in (LABEL_IDS, TRAIN_IDS))


def no_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """The ignored class on all pixels of the image at `path`."""
  picture = common.open_picture(path, problems)
  if picture is None:
    return None
  return np.full(picture.values.shape[:2], labels.IGNORED_TRAIN_ID, np.uint8)


def read_label(stem: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0..18 and 255 of NAME, from its label ids or, without these, its train ids."""
  ids, trained = (stem.with_name(stem.name + end) for end in (LABEL_IDS, TRAIN_IDS))
  if os.path.lexists(ids) or not os.path.lexists(trained):
    return converted(ids, common.read_ids(ids, problems), problems)
  found = common.read_ids(trained, problems)
  if found is None or in_range(trained, found, labels.TRAIN_IDS, problems):
    return found
  return None


def converted(
  path: pathlib.Path, found: np.ndarray | None, problems: common.Problems
) -> np.ndarray | None:
  """Label ids 0..33 -> train ids; None, with the problem noted, for another id."""
  if found is None or not in_range(path, found, labels.CITYSCAPES_IDS, problems):
    return None
  return labels.scored_train_ids(found)


def in_range(path, found: np.ndarray, known: Any, problems: common.Problems) -> bool:
  """Whether ids are all known; else the problem is noted."""
  wrong = labels.strange(found, known)
  if wrong:
    problems.add(path, wrong)
  return not wrong


def read_black_box(folder: pathlib.Path, stem: str, problems: common.Problems) -> np.ndarray | None:
  """A prediction in label ids, as train ids."""
  there = sorted(folder.iterdir()) if folder.is_dir() else []
  found = [p for p in there if is_box_of(p.name, stem)]
  if len(found) != 1:
    problems.add(folder / f'{stem}*', f'{len(found)} black-box predictions; expected one')
    return None
  (path,) = found
  if path.suffix.lower() == '.png':
    return converted(path, common.read_ids(path, problems), problems)
  with problems.collecting():
    return converted(path, read_array(path), problems)
  return None


def is_box_of(name: str, stem: str) -> bool:
  """Whether NAME.png, NAME_x.npy and so on is a prediction for the image NAME."""
  base, _, ending = name.rpartition('.')
  return ending.lower() in ('png', 'npy') and (base == stem or base.startswith(stem + '_'))


def read_array(path: pathlib.Path) -> np.ndarray:
  """Whole numbers [H, W] of a .npy file, of any kind, as int64. Raises UserError, by path."""
  files.check_regular(path)
  with reading(path, 'an array [H, W] of whole numbers'):
    found = np.load(
      path, mmap_mode='r', allow_pickle=False
    )  # which allocates no more than is there
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in 'biuf':
      raise ValueError(f'it holds {getattr(found, "dtype", "parts")} {np.shape(found)}')
    found = np.asarray(found)
    if not np.isfinite(found).all() or (found != np.round(found)).any():
      raise ValueError('it holds other than whole numbers')
    if found.size and np.abs(found.astype(np.float64)).max() > 2**31:
      raise ValueError('it holds numbers that are no ids')
    return found.astype(np.int64)


def image_scaled(image: np.ndarray, scale: float) -> np.ndarray:
  h, w = (max(1, round(n * scale)) for n in image.shape[:2])
  small = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  return np.asarray(small)


def nearest_scaled(x: np.ndarray, scale: float) -> np.ndarray:
  """The pixel at the centre of each new one, as Pillow's nearest filter takes it."""
  h, w = (max(1, round(n * scale)) for n in x.shape)
  rows, columns = ((np.arange(n) + 0.5) * s // n for n, s in zip((h, w), x.shape, strict=True))
  return x[rows.astype(int)[:, None], columns.astype(int)]
