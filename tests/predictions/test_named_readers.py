"""Readers with names of their own, as `car-jax prepare folder` takes them too."""

import numpy as np
from PIL import Image

from car_jax.predictions import grouping


def test_readers_may_have_names_in_a_folder_for_each_image(tmp_path, capsys):
  for image, readers in {'a': ('anna', 'ben'), 'b': ('ben', 'cleo', 'dora')}.items():
    (tmp_path / 'labels' / image).mkdir(parents=True)
    (tmp_path / 'predicted').mkdir(exist_ok=True)
    np.save(tmp_path / 'predicted' / f'{image}.npy', np.zeros((3, 8, 8), np.uint8))
    for reader in readers:
      path = tmp_path / 'labels' / image / f'{reader}.png'
      Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
  first, second = grouping.groups(tmp_path / 'predicted', str(tmp_path / 'labels'))
  assert [path.stem for path in first.labels] == ['anna', 'ben']
  assert [path.stem for path in second.labels] == ['ben', 'cleo', 'dora']
  assert 'labels one file for each reader, IMAGE/READER (2 to 3 for each' in capsys.readouterr().err
