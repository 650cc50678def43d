"""Tiny sources as people have them, and the command that prepares them."""

import pathlib

import cv2
import numpy as np

from car_jax.data import opening
from car_jax.datasets import prepare


def write_png(path: pathlib.Path, image: np.ndarray) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  assert cv2.imwrite(str(path), np.asarray(image, np.uint8))
  return path


def truncate(path: pathlib.Path, share: float = 0.5) -> None:
  path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def run(name: str, source: pathlib.Path | None, data_dir: pathlib.Path, *more: str) -> int:
  """The exit status of `car-jax prepare`."""
  given = [] if source is None else ['--source', str(source)]
  return prepare.main([name, *given, '--data-dir', str(data_dir), *more])


def records(name: str, data_dir: pathlib.Path, split: str = 'train') -> dict[str, dict]:
  """What train.py would read: id -> record."""
  source = opening.open_dataset({'name': name, 'data_dir': str(data_dir)}).split(split)
  found = {r['id']: r for r in (source[i] for i in range(len(source)))}
  assert source.ids == [*found]
  return found


def nothing_prepared(data_dir: pathlib.Path) -> bool:
  """No file of a data set is left, but those of an unfinished folder, which the next run clears."""
  files = (p for p in data_dir.rglob('*') if p.is_file())
  return not any('incomplete' not in str(p.relative_to(data_dir)) for p in files)


def lidc_crops(root: pathlib.Path, count: int = 2, size: int = 12) -> pathlib.Path:
  """The published layout with `count` images of one patient per split; no two images alike."""
  rng = np.random.default_rng(0)
  for split in ('train', 'val', 'test'):
    base = root / f'lidc_crops_{split}' / split
    for i in range(count):
      write_png(base / 'images' / f'p{split}' / f's{i}.png', rng.integers(0, 256, (size, size)))
      for reader in range(4):
        mask = 255 * (rng.random((size, size)) < 0.3)
        write_png(base / 'gt' / f'p{split}' / f's{i}_l{reader}.png', mask)
  return root


def folder(root: pathlib.Path, readers: tuple[int, ...] = (1, 3, 2)) -> pathlib.Path:
  """images/NAME.png with masks/NAME/*.png; image i has readers[i % len] masks."""
  rng = np.random.default_rng(1)
  for i in range(len(readers)):
    write_png(root / 'images' / f'im{i}.png', rng.integers(0, 256, (10, 14, 3)))
    for reader in range(readers[i]):
      mask = 255 * (rng.random((10, 14)) < 0.4)
      write_png(root / 'masks' / f'im{i}' / f'reader{reader}.png', mask)
  return root


LEFTOVERS = ('._x.png', '.DS_Store', 'Thumbs.db', 'desktop.ini')


def leave(root: pathlib.Path) -> int:
  """Leftovers of macOS and Windows in every folder of a source -> how many."""
  folders = [root, *(p for p in root.rglob('*') if p.is_dir())]
  for place in folders:
    for name in LEFTOVERS:
      (place / name).write_bytes(b'\0\5\x16\7' + bytes(80))
    for path in [p for p in place.iterdir() if p.is_file() and p.name not in LEFTOVERS]:
      if not path.name.startswith('._'):
        (place / f'._{path.name}').write_bytes(b'\0\5\x16\7' + bytes(80))
  return len(folders)
