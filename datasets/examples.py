"""A few test images of the data sets that are drawn here, with their labels, to try a model on."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from car_jax import folders
from car_jax.data.labels import CITYSCAPES_TO_TRAIN_ID
from car_jax.datasets import base
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc
from car_jax.datasets.street_scenes import street_scenes_dataset_builder as streets

LEAST = 80  # pixels that some reader marks
WEATHER = ('clear', 'rain', 'snow', 'night')
Example = tuple[str, np.ndarray, np.ndarray]  # name, image uint8, labels uint8


def write(out: pathlib.Path) -> list[pathlib.Path]:
  """Writes the pictures out/lidc and out/streets and their labels, out/lidc_readers and
  out/streets_labels -> the files. Raises UserError where there is something else."""
  picture = lambda path, values: Image.fromarray(values).save(path.with_suffix('.png'))
  readers = lambda path, values: np.savez_compressed(path.with_suffix('.npz'), readers=values)
  lesion, scene = [*lesions()], [*scenes()]
  written = _folder(out / 'lidc', picture, [(name, image) for name, image, _ in lesion])
  written += _folder(out / 'lidc_readers', readers, [(name, labels) for name, _, labels in lesion])
  written += _folder(out / 'streets', picture, [(name, image) for name, image, _ in scene])
  return written + _folder(
    out / 'streets_labels', picture, [(name, labels) for name, _, labels in scene]
  )


def _folder(
  folder: pathlib.Path, save: Callable[..., Any], of: list[tuple[str, np.ndarray]]
) -> list[pathlib.Path]:
  marker = f'{of[0][0]}.{"npz" if folder.name == "lidc_readers" else "png"}'
  with folders.replaced(folder, marker) as part:
    for name, values in of:
      save(part / name, values)
  return sorted(folder.iterdir())


def lesions(size: int = 64) -> Iterator[Example]:
  """Rendered slices around real outlines, [size, size], and four readers [4, size, size]: one that
  each number of readers marked, from test patients."""
  data = dict(np.load(lidc.FILE))
  by_readers: dict[int, Example] = {}
  for i in np.flatnonzero(data['split'] == base.SPLITS.index('test')):
    masks = lidc.centre(lidc.masks_of(data, int(i)), size)
    readers = int(masks.any((1, 2)).sum())
    if readers and readers not in by_readers and masks.any(0).sum() >= LEAST:
      image = lidc.render.slice_image(masks, data['ratings'][i], seed=int(i))
      by_readers[readers] = f'{readers}-of-4-readers', image, masks.astype(np.uint8)
    if len(by_readers) == len(masks):
      break
  return (by_readers[readers] for readers in sorted(by_readers))


def scenes(height: int = 64) -> Iterator[Example]:
  """A drawn test scene in each weather, [height, 2 height, 3], and train ids, 255 for void."""
  for domain in WEATHER:
    scene, _ = streets.drawn(streets.Config(height=height, domain=domain, seed=1), 'test', 3)
    yield domain, scene.image, CITYSCAPES_TO_TRAIN_ID[scene.labels]
