"""Folders of scenes: images on one side, labels of the same names on the other, nothing unread.

What a builder does not expect among its images is a problem, and so is a label without its image.
Parts and files that it has no use for are counted and named in the notes.
"""

import pathlib
from collections.abc import Callable, Collection, Iterable

from car_jax import files
from datasets import common

Key = tuple[str, str]  # a scene and a name in it


def images(
  folder: pathlib.Path, fits: Callable[[str], object], form: str, problems: common.Problems
) -> list[pathlib.Path]:
  """SCENE/NAME below the folder whose names fit, in this order; other files are problems."""
  found = []
  for path in common.files_under(folder, problems) if folder.is_dir() else []:
    if fits(path.name) and path.parent.parent == folder:
      found.append(path)
    else:
      problems.add(path, f'expected {form}; move other files elsewhere')
  return found


def labels(
  folder: pathlib.Path,
  ends: Collection[str],
  there: Collection[Key],
  missing: Callable[[Key], pathlib.Path],
  problems: common.Problems,
  *,
  beside: Collection[str] = (),
) -> None:
  """Compares SCENE/NAME + one of `ends` with the scenes and names of images that are there.

  A label without image is a problem, at `missing`, where the image would lie. `beside`: endings of
  files that belong to the data set and are not read; any other file is noted.
  """
  for path in common.files_under(folder, problems) if folder.is_dir() else []:
    end = next((end for end in ends if path.name.endswith(end)), '')
    key = path.parent.name, path.name.removesuffix(end)
    if not end or path.parent.parent != folder:
      if not path.name.endswith(tuple(beside)):
        problems.note(path, 'file beside labels, not read')
    elif key not in there:
      problems.add(missing(key), f'missing, but its label {path} is there')


def unread(folder: pathlib.Path, read: Iterable[str], problems: common.Problems) -> None:
  """Notes what lies in a folder beside the parts that are read."""
  for path in sorted(folder.iterdir()) if folder.is_dir() else []:
    if path.name not in read and not files.is_leftover(path):
      problems.note(path, 'part that is not read')


def unpaired(
  folder: pathlib.Path, frames: Collection[str], problems: common.Problems
) -> list[pathlib.Path]:
  """Pictures of a folder that are no label of these frames; what is no picture is noted."""
  found = []
  for path in common.files_under(folder, problems) if folder.is_dir() else []:
    if path.parent != folder or path.suffix != '.png':
      problems.note(path, 'file beside labels, not read')
    elif path.name not in frames:
      found.append(path)
  return found
