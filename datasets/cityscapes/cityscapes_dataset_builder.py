"""Cityscapes (https://www.cityscapes-dataset.com) and folders that are laid out like it."""

import functools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from car_jax.data import augmentation, labels
from car_jax.errors import UserError, nearest
from datasets import common
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
    for path in pictures(source, PARTS if place else PARTS[:2]):
      for split in place(path) if place else (split_of(path, values['splits']),):
        found[split].append(path)
    free = unlabelled(source, found, problems) if place else frozenset()
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


def pictures(source: pathlib.Path, parts: tuple[str, ...]) -> list[pathlib.Path]:
  """All images of these parts, in the order of city and name. Raises UserError."""
  for part in ('train', 'val'):
    if not (source / IMAGES / part).is_dir():
      raise UserError(
        f'{source / IMAGES / part} is not there\n'
        f'  expected {IMAGES}/train, {IMAGES}/val and {LABELS}/ beside; see docs/data.md'
      )
  found = [p for part in parts for p in sorted((source / IMAGES / part).glob('*/*'))]
  if odd := [p for p in found if not p.name.endswith(IMAGE_END)]:
    raise UserError(f'{odd[0]}: expected CITY/NAME{IMAGE_END}\n  move other files elsewhere')
  if not found:
    raise UserError(f'{source / IMAGES} holds no CITY/NAME{IMAGE_END}')
  return found


def unlabelled(
  source: pathlib.Path, found: dict[str, list[pathlib.Path]], problems: common.Problems
) -> frozenset[pathlib.Path]:
  """Images that have no label and need none. A label without its image is a problem.

  Says how many of train these are: a folder of labels that was forgotten looks the same.
  """
  there = {path for paths in found.values() for path in paths}
  for part in (part for part in PARTS if (source / IMAGES / part).is_dir()):
    for label in sorted((source / LABELS / part).glob('*/*')):
      name = label.name.removesuffix(LABEL_IDS).removesuffix(TRAIN_IDS)
      image = source / IMAGES / part / label.parent.name / f'{name}{IMAGE_END}'
      if name != label.name and image not in there:
        problems.add(image, f'missing, but its label {label} is there')
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
  odd = [(p, x.shape[::-1]) for p, x in maps if x.shape != image.shape[:2]]
  for where, (w, h) in odd:
    problems.add(where, f'{w}x{h} pixels, its image {image.shape[1]}x{image.shape[0]}')
  if not odd:
    yield [image_scaled(change(image), scale), *(nearest_scaled(x, scale) for _, x in maps)]


def label_stem(source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """SOURCE/gtFine/PART/CITY/NAME of an image: what the names of its label files begin with."""
  place = path.parent.relative_to(source / IMAGES)
  return source / LABELS / place / path.name.removesuffix(IMAGE_END)


def has_label(stem: pathlib.Path) -> bool:
  return any(stem.with_name(stem.name + end).is_file() for end in (LABEL_IDS, TRAIN_IDS))


def no_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """The ignored class on all pixels of the image at `path`."""
  picture = common.open_picture(path, problems)
  if picture is None:
    return None
  return np.full(picture.values.shape[:2], labels.IGNORED_TRAIN_ID, np.uint8)


def read_label(stem: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0..18 and 255 of NAME, from its label ids or, without these, its train ids."""
  ids, trained = (stem.with_name(stem.name + end) for end in (LABEL_IDS, TRAIN_IDS))
  if ids.is_file() or not trained.is_file():
    return converted(ids, common.read_ids(ids, problems), problems)
  found = common.read_ids(trained, problems)
  if found is None or in_range(trained, found, (*range(labels.SCORED), 255), problems):
    return found
  return None


def converted(
  path: pathlib.Path, found: np.ndarray | None, problems: common.Problems
) -> np.ndarray | None:
  """Label ids 0..33 -> train ids; None, with the problem noted, for another id."""
  known = range(len(labels.LABEL_ID_TO_TRAIN_ID))
  if found is None or not in_range(path, found, known, problems):
    return None
  return labels.scored_train_ids(found)


def in_range(path, found: np.ndarray, known: Any, problems: common.Problems) -> bool:
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
  h, w = (max(1, round(n * scale)) for n in image.shape[:2])
  small = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  return np.asarray(small)


def nearest_scaled(x: np.ndarray, scale: float) -> np.ndarray:
  """The pixel at the centre of each new one, as Pillow's nearest filter takes it."""
  h, w = (max(1, round(n * scale)) for n in x.shape)
  rows, columns = ((np.arange(n) + 0.5) * s // n for n, s in zip((h, w), x.shape, strict=True))
  return x[rows.astype(int)[:, None], columns.astype(int)]
