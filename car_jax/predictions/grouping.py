"""Which files are one image's: its samples, its readers, or both in one file.

Three layouts, of predictions and of labels alike:
  image   one file for each image: NAME.npz
  folder  one file for each sample or reader, in a folder for each image: NAME/0.png, NAME/1.png
  suffix  the same beside each other: NAME_0.png, NAME_1.png, or NAME_s0.npy, NAME_reader2.png
Where none of them fits, labels may lie in a fourth:
  named   one file for each reader, in a folder for each image: NAME/anna.png, NAME/ben.png
Which one it is follows from the names alone: that layout in which every prediction has its labels.
Where files could be images as well as samples, nothing is guessed. Numbers count from 0 or 1
without a gap, unless a word such as s, sample, r or reader stands before them.
"""

import dataclasses
import itertools
import pathlib
import re
import sys
from collections.abc import Sequence

from car_jax import files, sharding
from car_jax.errors import UserError, naming
from car_jax.reliability import pairing
from car_jax.reliability.pairing import Files, Group

LAYOUTS = ('image', 'folder', 'suffix')
LABELS = (*pairing.LABEL_ENDINGS, *pairing.ENDINGS)
WORDS = ('s', 'sample', 'r', 'reader', 'rater', 'annotator', 'expert')
_NUMBERED = re.compile(r'(?:(?P<word>[A-Za-z]+)[_-]?)?(?P<number>\d{1,9})')
_SUFFIXED = re.compile(
  rf'(?P<image>.+?)[_-](?:(?P<word>{"|".join(WORDS)})[_-]?)?(?P<number>\d{{1,9}})', re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class _Choice:
  """A layout of the predictions and one of the labels, each with the files by image."""

  layouts: tuple[str, str]
  predictions: Files
  labels: Files

  @property
  def fitting(self) -> int:
    """How many images have labels, and no two."""
    fits = pairing.candidates(self.predictions, self.labels).values()
    return sum(len(keys) == 1 for keys in fits)

  @property
  def fits(self) -> bool:
    return self.fitting == len(self.predictions)

  @property
  def words(self) -> str:
    parts = (self.layouts[0], 'sample', self.predictions), (self.layouts[1], 'reader', self.labels)
    return f'predictions {_words(*parts[0])}, labels {_words(*parts[1])}'


def _words(layout: str, what: str, of: Files) -> str:
  if layout == 'image':
    return 'one file for each image'
  name = {'folder': 'IMAGE/NUMBER', 'suffix': 'IMAGE_NUMBER', 'named': 'IMAGE/READER'}[layout]
  counts = sorted({len(paths) for paths in of.values()})
  span = f'{counts[0]}' if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'
  return f'one file for each {what}, {name} ({span} for each image)'


def groups(folder: pathlib.Path, labels: str, file_per: str = '') -> list[Group]:
  """Every image with its files, in the order of the paths, and a line on stderr how they were read.

  labels: a folder, or a CSV of pairs (pairing.py). file_per: 'image' or 'sample', what a file of
  predictions is of, where the names leave it open. Raises UserError as pairing.pairs does, and
  where two layouts are possible.
  """
  if labels.lower().endswith('.csv'):
    return pairing.listed(folder, pathlib.Path(labels))
  return matched(folder, pairing.prediction_files(folder, labels), labels, file_per)


def matched(folder: pathlib.Path, predictions: Files, labels: str, file_per: str) -> list[Group]:
  """As `groups`, of predictions by their place in `folder` and a folder of labels."""
  place = pathlib.Path(labels)
  inside = files.walk(place)
  known = pairing.label_files(place, inside, LABELS)
  choice = _chosen(folder, predictions, known, file_per)
  hint = f'read as {choice.words}; --file-per image or sample says what a file is of'
  with naming(folder, hint):
    labelled = pairing.matched(choice.predictions, choice.labels, place)
  pairing.say_unused(labelled, choice.labels, place, inside, LABELS)
  sharding.say(f'{folder}: {choice.words}', sys.stderr)
  return [Group(key, key, choice.predictions[key], own) for key, own in labelled.items()]


def _chosen(folder: pathlib.Path, predictions: Files, labels: Files, file_per: str) -> _Choice:
  """The only layouts in which all predictions have labels, else those in which most have.

  Names that are there on both sides as they are, are images. They may be samples and readers of the
  same numbers too, so they are refused where that would make several images.
  """
  every = [
    _Choice((one, two), left, right)
    for one, two in itertools.product(LAYOUTS, (*LAYOUTS, 'named'))
    if (left := grouped(predictions, one)) and (right := grouped(labels, two))
    if not file_per or (one == 'image') == (file_per == 'image')
  ]
  numbered = [choice for choice in every if choice.layouts[1] != 'named']
  if any(choice.fits for choice in numbered):
    every = numbered
  if not every:
    raise UserError(
      f'{folder} has no names such as IMAGE/0.png or IMAGE_0.png for --file-per sample'
    )
  fitting = [choice for choice in every if choice.fits]
  plain = next((c for c in every if c.layouts == ('image', 'image')), None)
  if plain is not None and plain.fitting:
    others = [c for c in fitting if c.layouts[0] != 'image']
    doubtful = [c for c in others if not plain.fits or len(c.predictions) > 1]
    if doubtful and not file_per:
      _refuse(folder, [plain, doubtful[0]])
    return plain
  if len(fitting) > 1:
    _refuse(folder, fitting)
  return fitting[0] if fitting else max(every, key=lambda choice: choice.fitting)


def _refuse(folder: pathlib.Path, choices: Sequence[_Choice]) -> None:
  listed = '\n'.join(f'  {choice.words}' for choice in choices)
  raise UserError(
    f'{folder} can be read in {len(choices)} ways:\n{listed}\n'
    '  --file-per image or --file-per sample says what a file of predictions is of'
  )


def grouped(plain: Files, layout: str) -> Files:
  """Files by their own place -> by image; {} where some name is not of this layout."""
  if layout == 'image':
    return plain
  if layout == 'named':
    of_image: dict[str, list[pathlib.Path]] = {}
    for key, (path,) in sorted(plain.items()):
      of_image.setdefault(str(pathlib.PurePath(key).parent), []).append(path)
    return {} if '.' in of_image else {image: tuple(of) for image, of in of_image.items()}
  parts: dict[str, dict[int, pathlib.Path]] = {}
  words: dict[str, set[str]] = {}
  for key, (path,) in plain.items():
    if (of := _split(key, layout)) is None:
      return {}
    image, word, number = of
    if parts.setdefault(image, {}).setdefault(number, path) != path:
      return {}
    words.setdefault(image, set()).add(word)
  for image, numbers in parts.items():
    first = min(numbers)
    counted = first <= 1 and max(numbers) - first + 1 == len(numbers)
    if len(words[image]) > 1 or not (counted or words[image] <= {*WORDS}):
      return {}
  return {image: tuple(parts[image][k] for k in sorted(parts[image])) for image in sorted(parts)}


def _split(key: str, layout: str) -> tuple[str, str, int] | None:
  """'a/b_s3' -> ('a/b', 's', 3): the image, the word before the number, the number."""
  place = pathlib.PurePath(key)
  if layout == 'folder':
    match, image = _NUMBERED.fullmatch(place.name), str(place.parent)
    if match is None or image == '.':
      return None
  else:
    match = _SUFFIXED.fullmatch(place.name)
    if match is None:
      return None
    image = str(place.with_name(match['image']))
  return image, (match['word'] or '').lower(), int(match['number'])
