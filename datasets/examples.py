"""A few test images of the data sets that are drawn here, as pictures to try a model on."""

import pathlib

import numpy as np
from PIL import Image

from car_jax.datasets import base
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc
from car_jax.datasets.street_scenes import street_scenes_dataset_builder as streets
from car_jax.evaluate import folders

LEAST = 80  # pixels that some reader marks
WEATHER = ('clear', 'rain', 'snow', 'night')


def write(out: pathlib.Path) -> list[pathlib.Path]:
  """Writes out/lidc and out/streets and returns the pictures. Raises UserError where they are."""
  written = []
  for kind, pictures in {'lidc': lesions(), 'streets': scenes()}.items():
    with folders.replaced(out / kind, f'{next(iter(pictures))}.png') as part:
      for name, image in pictures.items():
        Image.fromarray(image).save(part / f'{name}.png')
    written += [out / kind / f'{name}.png' for name in pictures]
  return written


def lesions(size: int = 64) -> dict[str, np.ndarray]:
  """Rendered slices around real outlines, uint8 [size, size]: one that each number of readers
  marked, from test patients."""
  data = dict(np.load(lidc.FILE))
  out: dict[str, np.ndarray] = {}
  for i in np.flatnonzero(data['split'] == base.SPLITS.index('test')):
    masks = lidc.centre(lidc.masks_of(data, int(i)), size)
    readers = int(masks.any((1, 2)).sum())
    name = f'{readers}-of-4-readers'
    if readers and name not in out and masks.any(0).sum() >= LEAST:
      out[name] = lidc.render.slice_image(masks, data['ratings'][i], seed=int(i))
    if len(out) == len(masks):
      break
  return dict(sorted(out.items()))


def scenes(height: int = 64) -> dict[str, np.ndarray]:
  """A drawn test scene in each weather, uint8 [height, 2 height, 3]."""
  config = lambda domain: streets.Config(height=height, domain=domain, seed=1)
  return {domain: streets.drawn(config(domain), 'test', 3)[0].image for domain in WEATHER}
