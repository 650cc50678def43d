"""A small folder as GenVal released its images, written by hand after its description."""

import json

import numpy as np
from PIL import Image


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.uint8(array)).save(path)


def styles(root, domains=('fog', 'heavy rain')):
  """images/style_transfer/num_samples_2/0 with two images of one scene a domain."""
  rng = np.random.default_rng(0)
  for domain in domains:
    for n in (0, 11):
      scene = f'frankfurt/{domain}_{n}_frankfurt_000001_000019'
      save(
        root / domain / f'leftImg8bit/val/{scene}_leftImg8bit.png', rng.integers(0, 256, (8, 8, 3))
      )
      save(root / domain / f'original/val/{scene}_leftImg8bit.png', np.zeros((8, 8, 3)))
      save(root / domain / f'gtFine/val/{scene}_labelIds.png', np.full((8, 8), (7, 26)[n > 0]))
  return root


def objects(root, refined=True):
  """images/ood_objects: table 0 to 2, of which 1 has no mask and 2 another scene."""
  rng = np.random.default_rng(1)
  for n in range(3):
    place = root / 'with_positions' / 'polar bear'
    save(place / f'{n}.png', rng.integers(0, 256, (8, 16, 3)))
    save(place / f'{n}_gt.png', np.full((8, 16), 7 if n < 2 else 11))
    position = {f'{n}.png': {'pos_mask': [2, 3], 'size_mask': 4}}
    (place / f'{n}_pos.json').write_text(json.dumps(position))
    if refined:
      save(root / f'refined/polar bear/{n}.png', rng.integers(0, 256, (8, 16, 3)))
    mask = np.zeros((8, 16))
    mask[3:5, 4:6] = 255
    if n == 1:
      (root / 'masks/polar bear/1_mask.txt').write_text('')
    else:
      save(root / f'masks/polar bear/{n}_mask.png', mask)
  return root
