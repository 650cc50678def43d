"""Cityscapes (https://www.cityscapes-dataset.com) and folders that are laid out like it."""

import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

import numpy as np
from PIL import Image

from car_jax import files
from car_jax.data import augmentation, labels
from car_jax.datasets import base, common, layout
from car_jax.errors import UserError, nearest, reading
from car_jax.options import Range

IMAGES, LABELS, ENDS = 'leftImg8bit', 'gtFine', ('_leftImg8bit.png',)
# The training cities that CAR and MoSE validate on; the official validation split is their test.
VALIDATION_CITIES = ('darmstadt', 'monchengladbach', 'ulm')
RELIABILITY_CITIES = {'frankfurt': 'test', 'lindau': 'calibration', 'munster': 'calibration'}
SPLITS = ('train', 'val2', 'validation', 'calibration', 'test')
VAL2 = pathlib.Path(__file__).with_name('val2.txt')
PARTS = ('train', 'val', 'test')  # folders; test is read for --splits adaptation, where it is there
LABEL_IDS, TRAIN_IDS = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'
COMPANIONS: tuple[str, ...] = ('_gtFine_color.png', '_gtFine_instanceIds.png')
COMPANIONS += ('_gtFine_polygons.json', '_gtFine_instanceTrainIds.png', '_gtFine_panoptic.png')
CITATION = 'Cordts et al., The Cityscapes dataset for semantic urban scene understanding, CVPR 2016'


@dataclasses.dataclass
class Config(base.ScaledConfig):
  UNNAMED = ('black_box',)
  scale: base.Scale = 0.25
  black_box: str = ''
  """Folder with another model's predictions; default SOURCE/black_box, where it is there."""
  splits: Literal['ambiguity', 'reliability', 'adaptation'] = 'ambiguity'
  """Which published splits."""
  augmented: Annotated[int, Range(0, 1000)] = 0
  """Changed copies of each calibration image."""

  def check(self):
    if self.augmented and self.splits != 'reliability':
      raise UserError(
        f'--augmented cannot be {self.augmented}\n'
        '  expected 0 or more, and with it --splits reliability'
      )

  def for_source(self, source: pathlib.Path) -> Self:
    if self.black_box and not pathlib.Path(self.black_box).is_dir():
      raise UserError(f'--black-box {self.black_box}: no such folder')
    there = 'black_box' if (source / 'black_box').is_dir() else ''
    given = str(pathlib.Path(self.black_box).absolute()) if self.black_box else there
    return dataclasses.replace(super().for_source(source), black_box=given)


class Builder(base.Builder):
  """Cityscapes, and folders that are laid out like it, at `scale` of their size.

  Images by an antialiased bilinear filter, labels by the nearest pixel. `black_box` is a folder of
  predictions as label ids, {train,val}/CITY/NAME_*.png or .npy, relative to the source.
  `splits` reliability cuts the validation cities in two, as arXiv 2303.11298 does, and `augmented`
  N adds N changed copies of each calibration image. `splits` adaptation keeps the official ones:
  {train,val,test}, and val2, a part of train. There an image of test, or of train but not of val2,
  needs no label: without one all its pixels are ignored.
  """

  TRAINING = 'deeplabv3plus_cityscapes'
  HOMEPAGE = 'https://www.cityscapes-dataset.com'
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    leftImg8bit/{{train,val}}/CITY/NAME_leftImg8bit.png and
    gtFine/{{train,val}}/CITY/NAME_gtFine_labelIds.png or _labelTrainIds.png: the archives
    leftImg8bit_trainvaltest and gtFine_trainvaltest ({HOMEPAGE}),
    unpacked side by side"""
  BUILDER_CONFIGS = [
    Config(description='256x512, as CAR and MoSE train on'),
    Config(name='black_box', black_box='black_box', description='With predictions in black_box/'),
    Config(scale=1.0, description='1024x2048'),
    Config(scale=1.0, splits='reliability', description='The splits of arXiv 2303.11298'),
    Config(splits='reliability', augmented=15, description='With augmented calibration images'),
    Config(scale=1.0, splits='adaptation', description='The splits of DA-SAC, arXiv 2105.00097'),
  ]

  def about(self):
    return about(
      black_box=bool(self.builder_config.black_box),
      licence='Cityscapes licence: research use, no redistribution',
      citation=CITATION,
    )

  def splits(self, source):
    config = self.builder_config
    self.boxes = source / config.black_box if config.black_box else None
    adaptation = config.splits == 'adaptation'
    paths = self._pictures(source, PARTS if adaptation else PARTS[:2])
    own = self.boxes and self.boxes.absolute() == (source / 'black_box').absolute()
    layout.unread(source, (IMAGES, LABELS, *['black_box'] * bool(own)), self.problems)
    unused_boxes(self.boxes, paths, self.problems)
    splits: dict[str, list[pathlib.Path]] = {split: [] for split in SPLITS}
    for path in paths:
      for split in splits_of(path, config.splits):
        splits[split].append(path)
    self.free = unlabelled(source, splits) if adaptation else frozenset()
    items = {s: [(p, np.asarray, '') for p in paths] for s, paths in splits.items()}
    return items | {'calibration_augmented': copies(splits['calibration'], config.augmented)}

  def _pictures(self, source: pathlib.Path, parts: tuple[str, ...]) -> list[pathlib.Path]:
    """All images of these parts. Raises UserError where a part or every image is missing."""
    for part in ('train', 'val'):
      if not (source / IMAGES / part).is_dir():
        raise UserError(
          f'{source / IMAGES / part} is not there\n'
          f'  expected {IMAGES}/train, {IMAGES}/val and {LABELS}/ beside; see docs/data.md'
        )
    kw: dict[str, Any] = dict(scene='CITY', beside=COMPANIONS)
    paths = []
    for part in parts:
      folders = source / IMAGES / part, source / LABELS / part
      paths += layout.paired(*folders, ENDS, (LABEL_IDS, TRAIN_IDS), self.problems, **kw)
    layout.unread(source / IMAGES, parts, self.problems)
    layout.unread(source / LABELS, parts, self.problems)
    if not paths:
      self.problems.stop_if_any(source)
      raise UserError(f'{source / IMAGES} holds no CITY/NAME{ENDS[0]}')
    return paths

  def example(self, item):
    """The image is changed at its full size."""
    path, change, ending = item
    city, stem = layout.key(path, ENDS)
    where, free = label_path(self.source, path), path in self.free
    label = no_label(path, self.problems) if free else read_label(where, self.problems)
    maps = [(where, label)]
    if self.boxes is not None:
      folder = self.boxes / path.parent.parent.name / city
      maps.append((folder / stem, read_black_box(folder, stem, self.problems)))
    scale, name = self.builder_config.scale, f'{city}/{stem}'
    for image, label, *box in scaled(path, maps, scale, self.problems, change):
      yield f'{name}{ending}', name, image, label[None], *box


def copies(paths: list[pathlib.Path], count: int) -> list[tuple]:
  """Items of changed copies, all images of a city before its next copies; as they are published.

  The draws of one city depend on each other: its items are made in this order.
  """
  items = []
  for city in sorted({path.parent.name for path in paths}):
    rng = np.random.RandomState(augmentation.SEED)  # anew for each city, as published
    change = functools.partial(augmentation.augmented, rng=rng)
    of_city = [path for path in paths if path.parent.name == city]
    items += [(path, change, f'_aug{k}') for k in range(count) for path in of_city]
  return items


def splits_of(path: pathlib.Path, splits: str) -> tuple[str, ...]:
  """The splits of an image. Raises UserError for a city that `splits` does not know.

  Those of adaptation are what DA-SAC (arXiv 2105.00097) adapts to, chooses and scores by: val2 is a
  part of train, its labels choose the snapshot, its images are adapted to.
  """
  part, (city, frame) = path.parts[-3], layout.key(path, ENDS)
  if splits == 'adaptation':
    official = {'train': 'train', 'val': 'validation', 'test': 'test'}[part]
    return (official, 'val2') if part == 'train' and frame in val2_frames() else (official,)
  if part == 'train':
    return ('validation',) if city in VALIDATION_CITIES else ('train',)
  if splits == 'ambiguity':
    return ('test',)
  if city not in RELIABILITY_CITIES:
    raise UserError(
      f'{path}: --splits reliability knows no city {city!r} in val\n'
      f'{nearest(city, RELIABILITY_CITIES)}'
    )
  return (RELIABILITY_CITIES[city],)


@functools.cache
def val2_frames() -> frozenset[str]:
  """Names such as aachen_000000_000019. A sequence's annotated frame is the 19th unless given."""
  frame_names = set()
  for line in VAL2.read_text().splitlines():
    if line.startswith('#'):
      continue
    city, *frames = line.split()
    for frame in frames:
      sequence, _, k = frame.partition(':')
      frame_names.add(f'{city}_{int(sequence):06}_{int(k or 19):06}')
  return frozenset(frame_names)


def about(**more: Any) -> base.About:
  """Of any data set with Cityscapes' 19 classes, one label per image."""
  return base.About(
    class_names=labels.CLASS_NAMES[: labels.SCORED],
    readers=1,
    palette=labels.PALETTE[: labels.SCORED],
    ignore_label=labels.IGNORED_TRAIN_ID,
    **more,
  )


def unused_boxes(
  folder: pathlib.Path | None, paths: list[pathlib.Path], problems: common.Problems
) -> None:
  """Notes black-box predictions of no image that is read."""
  if folder is None:
    return
  stems: dict[tuple[str, ...], list[str]] = {}
  for path in paths:
    stems.setdefault(path.parts[-3:-1], []).append(layout.key(path, ENDS)[1])
  for box in common.files_under(folder, problems):
    if not any(is_box_of(box.name, stem) for stem in stems.get(box.parts[-3:-1], ())):
      problems.note(box, 'black-box prediction of no image that is read')


def unlabelled(
  source: pathlib.Path, splits: dict[str, list[pathlib.Path]]
) -> frozenset[pathlib.Path]:
  """Images that have no label and need none.

  Says how many of train these are: a folder of labels that was forgotten looks the same.
  """
  there = {path for paths in splits.values() for path in paths}
  need = {*splits['val2'], *splits['validation']}
  free = frozenset(p for p in there - need if not os.path.lexists(label_path(source, p)))
  count = len(free.intersection(splits['train']))
  if count:
    print(
      f'{count:,} of {len(splits["train"]):,} images of train have no label: '
      'all their pixels are ignored',
      file=sys.stderr,
    )
  return free


def scaled(
  path: pathlib.Path,
  maps: list[tuple[pathlib.Path, Any]],
  scale: float,
  problems: common.Problems,
  change: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Iterator[list[np.ndarray]]:
  """The image and its maps [H, W] at `scale`, once; nothing, with the problems noted, if bad."""
  image = common.read_image(path, problems, colour=True)
  if image is None or any(x is None for _, x in maps):
    return
  if common.fits(path, image, maps, problems):
    yield [image_scaled(change(image), scale), *(nearest_scaled(x, scale) for _, x in maps)]


def label_path(source: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
  """The label ids of an image or, where these are not there, its train ids."""
  stem = source / LABELS / path.parts[-3] / '/'.join(layout.key(path, ENDS))
  ids, trained = (stem.with_name(stem.name + end) for end in (LABEL_IDS, TRAIN_IDS))
  return trained if os.path.lexists(trained) and not os.path.lexists(ids) else ids


def no_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """The ignored class on all pixels of the image at `path`."""
  picture = common.open_picture(path, problems)
  if picture is None:
    return None
  return np.full(picture.values.shape[:2], labels.IGNORED_TRAIN_ID, np.uint8)


def read_label(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """Train ids 0 to 18 and 255, of a file of label ids or of train ids."""
  ids = common.read_ids(path, problems)
  if path.name.endswith(TRAIN_IDS):
    return train_ids(path, ids, labels.TRAIN_IDS, np.asarray, problems)
  return from_label_ids(path, ids, problems)


def train_ids(
  path: pathlib.Path,
  ids: np.ndarray | None,
  known: Any,
  convert: Callable[[np.ndarray], np.ndarray],
  problems: common.Problems,
) -> np.ndarray | None:
  """Ids [H, W] of the file, converted; None, with the problem noted, for one that is not known."""
  if ids is None:
    return None
  if wrong := labels.strange(ids, known):
    problems.add(path, wrong)
    return None
  return convert(ids)


def from_label_ids(
  path: pathlib.Path, ids: np.ndarray | None, problems: common.Problems
) -> np.ndarray | None:
  """The same of Cityscapes' label ids 0 to 33."""
  return train_ids(path, ids, labels.CITYSCAPES_IDS, labels.scored_train_ids, problems)


def read_black_box(folder: pathlib.Path, stem: str, problems: common.Problems) -> np.ndarray | None:
  """A prediction in label ids, as train ids."""
  there = sorted(folder.iterdir()) if folder.is_dir() else []
  boxes = [p for p in there if is_box_of(p.name, stem)]
  if len(boxes) != 1:
    problems.add(folder / f'{stem}*', f'{len(boxes)} black-box predictions; expected one')
    return None
  (path,) = boxes
  if path.suffix.lower() == '.png':
    return from_label_ids(path, common.read_ids(path, problems), problems)
  with problems.collecting():
    return from_label_ids(path, read_array(path), problems)
  return None


def is_box_of(name: str, stem: str) -> bool:
  """Whether NAME.png, NAME_x.npy and so on is a prediction for the image NAME."""
  base, _, ending = name.rpartition('.')
  return ending.lower() in ('png', 'npy') and (base == stem or base.startswith(stem + '_'))


def read_array(path: pathlib.Path) -> np.ndarray:
  """Whole numbers [H, W] of a .npy file, of any kind, as int64. Raises UserError, by path."""
  files.check_regular(path)
  with reading(path, 'an array [H, W] of whole numbers'):
    ids = np.load(path, mmap_mode='r', allow_pickle=False)  # which allocates no more than is there
    if not isinstance(ids, np.ndarray) or ids.ndim != 2 or ids.dtype.kind not in 'biuf':
      raise ValueError(f'it holds {getattr(ids, "dtype", "parts")} {np.shape(ids)}')
    ids = np.asarray(ids)
    if not np.isfinite(ids).all() or (ids != np.round(ids)).any():
      raise ValueError('it holds other than whole numbers')
    if ids.size and np.abs(ids.astype(np.float64)).max() > 2**31:
      raise ValueError('it holds numbers that are no ids')
    return ids.astype(np.int64)


def image_scaled(image: np.ndarray, scale: float) -> np.ndarray:
  h, w = (max(1, round(n * scale)) for n in image.shape[:2])
  small = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
  return np.asarray(small)


def nearest_scaled(x: np.ndarray, scale: float) -> np.ndarray:
  """The pixel at the centre of each new one, as Pillow's nearest filter takes it."""
  h, w = (max(1, round(n * scale)) for n in x.shape)
  rows, columns = ((np.arange(n) + 0.5) * s // n for n, s in zip((h, w), x.shape, strict=True))
  return x[rows.astype(int)[:, None], columns.astype(int)]
