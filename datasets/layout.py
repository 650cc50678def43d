"""Folders of scenes: images on one side, labels of the same names on the other, nothing unread.

What a builder does not expect among its images is a problem, and so is a label without its image.
Parts and files that it has no use for are counted and named in the notes.
"""

import pathlib
from collections.abc import Collection, Iterable

from car_jax import files
from car_jax.datasets import common


def paired(
  images: pathlib.Path,
  labels: pathlib.Path,
  ends: tuple[str, ...],
  label_ends: tuple[str, ...],
  problems: common.Problems,
  *,
  scene: str = 'SCENE',
  beside: tuple[str, ...] = (),
) -> list[pathlib.Path]:
  """SCENE/NAME + one of `ends` below the folder of images, in the order of the paths.

  Other files there are problems, and so are a name that is there twice and a label SCENE/NAME + one
  of `label_ends` without image, named where that would lie. scene: what the data set calls one.
  beside: endings of files that belong to the data set and are not read; others are noted.
  """
  by_key: dict[tuple[str, str], pathlib.Path] = {}
  for path in _below(images, problems):
    if path.parent.parent != images or not path.name.endswith(ends):
      form = f'{scene}/NAME{" or ".join((ends[0], *(e[e.index(".") :] for e in ends[1:])))}'
      problems.add(path, f'expected {form}; move other files elsewhere')
    elif by_key.setdefault(key(path, ends), path) != path:
      problems.add(path, f'is there twice, also as {by_key[key(path, ends)].name}')
  for path in _below(labels, problems):
    if path.parent.parent != labels or not path.name.endswith(label_ends):
      if not path.name.endswith(beside):
        problems.note(path, 'file beside labels, not read')
    elif (of := key(path, label_ends)) not in by_key:
      missing = images / of[0] / f'{of[1]}{ends[0]}'
      problems.add(missing, f'missing, but its label {path} is there')
  return [*by_key.values()]


def key(path: pathlib.Path, ends: Iterable[str]) -> tuple[str, str]:
  """The scene and the name of SCENE/NAME + one of `ends`."""
  end = next(end for end in ends if path.name.endswith(end))
  return path.parent.name, path.name.removesuffix(end)


def _below(folder: pathlib.Path, problems: common.Problems) -> list[pathlib.Path]:
  return common.files_under(folder, problems) if folder.is_dir() else []


def unread(folder: pathlib.Path, read: Iterable[str], problems: common.Problems) -> None:
  """Notes what lies in a folder beside the parts that are read."""
  for path in sorted(folder.iterdir()) if folder.is_dir() else []:
    if path.name not in read and not files.is_leftover(path):
      problems.note(path, 'part that is not read')


def unpaired(
  folder: pathlib.Path, frames: Collection[str], problems: common.Problems
) -> list[pathlib.Path]:
  """Pictures of a folder that are no label of these frames; what is no picture is noted."""
  pictures = []
  for path in _below(folder, problems):
    if path.parent != folder or path.suffix != '.png':
      problems.note(path, 'file beside labels, not read')
    elif path.name not in frames:
      pictures.append(path)
  return pictures
