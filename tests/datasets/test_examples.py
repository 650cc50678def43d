"""Pictures to try a model on, and their labels, are what is drawn, wherever that is done."""

import pathlib

import numpy as np
from PIL import Image

from car_jax.datasets import examples


def test_the_pictures_of_the_checkout_are_what_is_drawn(tmp_path):
  written = examples.write(tmp_path)
  kept = sorted(p for p in pathlib.Path('examples').rglob('*') if p.is_file())
  assert [p.relative_to('examples') for p in kept] == sorted(
    p.relative_to(tmp_path) for p in written
  )
  for path in kept:
    drawn, tolerance = values(tmp_path / path.relative_to('examples')), path.suffix == '.png'
    np.testing.assert_allclose(values(path), drawn, atol=int(tolerance))


def values(path):
  if path.suffix == '.npz':
    return np.load(path)['readers'].astype(int)
  return np.asarray(Image.open(path), int)
