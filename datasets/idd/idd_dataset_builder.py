"""IDD Segmentation (https://idd.insaan.iiit.ac.in): Indian streets, in Cityscapes' classes."""

import functools
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from car_jax.data import labels
from car_jax.errors import UserError, nearest
from datasets import common, layout
from datasets.cityscapes import cityscapes_dataset_builder as cityscapes
from datasets.options import Option

IMAGES, LABELS = 'leftImg8bit', 'gtFine'
PICTURE, LABEL_END = r'(.+)_leftImg8bit\.(png|jpe?g)', '_gtFine_labellevel3Ids.png'
COMPANIONS = ('_gtFine_polygons.json', '_gtFine_labelColors.png', '_gtFine_instanceIds.png')
COMPANIONS += tuple(f'_gtFine_labellevel{k}Ids.png' for k in (1, 2, 4))
COMPANIONS += ('_gtFine_labelIds.png', '_gtFine_labelCsIds.png')
# Of IDD's training part: the labels of its own test part are not public.
TEST_SCENES = frozenset(
  (
    *(265, 431, 175, 528, 39, 137, 538, 499, 7, 376, 37, 209, 306, 413, 380, 374, 472, 523, 446),
    *(121, 171, 488, 278, 411, 312, 453, 110, 285, 46, 158, 426, 544, 230, 41, 520, 322, 95),
  )
)
CITATION = 'Varma et al., IDD, WACV 2019, arXiv 1811.10200'


class Builder(common.Builder):
  """SOURCE/leftImg8bit/{train,val}/SCENE/NAME_leftImg8bit.png or .jpg with SOURCE/gtFine/
  {train,val}/SCENE/NAME_gtFine_labellevel3Ids.png, which IDD's own scripts make; of several sizes.

  Splits as in arXiv 2303.11298: `test` is 37 scenes of the training part, `calibration` the
  validation part; `train` is what is left. `--unknown 8,16` makes these ids unknown objects.
  """

  CONFIG = 'reliability_cityscapes'
  OPTIONS = {
    'scale': common.scale(0.5),
    'unknown': Option('', 'level-3 ids that are unknown objects, such as 8,16'),
  }

  @classmethod
  def check(cls, values):
    if values['unknown'] and not unknown_ids(values['unknown']):
      raise UserError(f'--unknown cannot be {values["unknown"]!r}\n  expected ids such as 8,16')

  def contents(self, options, problems):
    source, values = options.source, options.values
    unknown = unknown_ids(values['unknown'])
    found: dict[str, list[pathlib.Path]] = {'train': [], 'calibration': [], 'test': []}
    for part in ('train', 'val'):
      for path in pictures(source / IMAGES / part, source / LABELS / part, problems):
        inside = 'test' if path.parent.name in map(str, TEST_SCENES) else 'train'
        found['calibration' if part == 'val' else inside].append(path)
    layout.unread(source, (IMAGES, LABELS), problems)
    layout.unread(source / IMAGES, ('train', 'val'), problems)
    layout.unread(source / LABELS, ('train', 'val'), problems)
    if not any(found.values()):
      problems.stop_if_any(source)
      raise UserError(
        f'{source / IMAGES} holds no {{train,val}}/SCENE/NAME_leftImg8bit.png or .jpg\n'
        f'  expected {IMAGES}/ and {LABELS}/ side by side; see docs/data.md'
      )
    make = functools.partial(examples, source / LABELS, unknown, values['scale'], problems)
    return cityscapes.contents(
      {s: (len(paths), functools.partial(make, paths)) for s, paths in found.items() if paths},
      unknown_label=labels.UNKNOWN_LABEL if unknown else None,
      licence="IDD's licence: research use, no redistribution",
      citation=CITATION,
    )


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


def pictures(
  folder: pathlib.Path, gt: pathlib.Path, problems: common.Problems
) -> list[pathlib.Path]:
  """SCENE/NAME_leftImg8bit.png or .jpg in the order of scene and name; others are problems.

  So are labels in `gt`, the labels' part, that have no image.
  """
  fits = lambda name: re.fullmatch(PICTURE, name)
  found: dict[tuple[str, str], pathlib.Path] = {}
  for path in layout.images(folder, fits, 'SCENE/NAME_leftImg8bit.png or .jpg', problems):
    name = fits(path.name)[1]
    if found.setdefault((path.parent.name, name), path) != path:
      problems.add(path, f'is there twice, also as {found[path.parent.name, name].name}')
  missing = lambda of: folder / of[0] / f'{of[1]}_leftImg8bit.png'
  layout.labels(gt, (LABEL_END,), found, missing, problems, beside=COMPANIONS)
  return list(found.values())


def examples(
  gt: pathlib.Path,
  unknown: tuple[int, ...],
  scale: float,
  problems: common.Problems,
  paths: list[pathlib.Path],
) -> Iterator[common.Example]:
  for path in paths:
    part, scene = path.parts[-3:-1]
    stem = re.fullmatch(PICTURE, path.name)[1]
    where = gt / part / scene / f'{stem}{LABEL_END}'
    maps = [(where, read_label(where, unknown, problems))]
    for image, label in cityscapes.scaled(path, maps, scale, problems):
      group = f'{part}/{scene}'
      yield f'{group}/{stem}', group, image, label[None]


def read_label(
  path: pathlib.Path, unknown: tuple[int, ...], problems: common.Problems
) -> np.ndarray | None:
  """Train ids 0 to 18, 254 for ids in `unknown`, 255 for what is not scored."""
  found = common.read_ids(path, problems)
  if found is None or not cityscapes.in_range(path, found, labels.IDD_IDS, problems):
    return None
  return labels.idd_train_ids(found, unknown)
