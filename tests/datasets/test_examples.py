"""Pictures to try a model on are those in the checkout, wherever they are drawn."""

import pathlib

import numpy as np
from PIL import Image

from car_jax.datasets import examples


def test_the_pictures_of_the_checkout_are_what_is_drawn(tmp_path):
  written = examples.write(tmp_path)
  kept = sorted(pathlib.Path('examples').rglob('*.png'))
  assert [p.relative_to('examples') for p in kept] == sorted(
    p.relative_to(tmp_path) for p in written
  )
  for path in kept:
    drawn = np.asarray(Image.open(tmp_path / path.relative_to('examples')), int)
    np.testing.assert_allclose(np.asarray(Image.open(path), int), drawn, atol=1)
