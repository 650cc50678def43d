"""What CAR does to images and labels before a network sees them, against the recorded arrays."""

import re

import numpy as np

from car_jax.data import labels, transforms
from tests.replay import Replay, replays

STRIDE = 4  # the recorded outputs are every fourth pixel of both axes
SHOWN_READER = 1


@replays('car', 'misc')
def lidc_transforms(r: Replay) -> None:
  image = r['lidc_image_u8']
  h, w = image.shape
  bits = np.unpackbits(r['lidc_gt'])
  readers = bits[: len(bits) // (h * w) * h * w].reshape(-1, h, w)
  size = r.arrays['lidc_out_image_slice'].shape[0] * STRIDE
  example = {'image': image[..., None], 'labels': readers, 'id': 'golden'}
  cropped = transforms.CentreCrop(size)(example, np.random.default_rng(0))
  model_image = transforms.model_image(cropped['image'])[::STRIDE, ::STRIDE]
  shown = cropped['labels'][:, ::STRIDE, ::STRIDE]
  for channel in range(3):
    r.check('lidc_out_image_slice', model_image[..., channel], 0, name=f'lidc image[{channel}]')
  classes = np.arange(len(r.arrays['lidc_out_label_slice']))
  r.check('lidc_out_label_slice', shown[SHOWN_READER] == classes[:, None, None], 0)
  r.check('lidc_out_dist_slice', shown, 0)


@replays('car', 'misc')
def nearest_neighbours(r: Replay) -> None:
  scales = np.linspace(0.6, 1, 4)
  for key in list(r.arrays):
    if found := re.fullmatch(r'nearest_(\d+)_scale(\d+)', key):
      source, target = int(found[1]), len(r.arrays[key])
      r.check(key, transforms.nearest_indices(source, target, scales[int(found[2])]), 0)
    elif found := re.fullmatch(r'resize_(?:rows|cols)_(\d+)', key):
      r.check(key, transforms.nearest_indices(int(found[1]), len(r.arrays[key])), 0)


@replays('car', 'misc')
def label_ids(r: Replay) -> None:
  known = np.arange(len(r.arrays['bb_label_id_to_train_id']))
  r.check('bb_label_id_to_train_id', labels.train_ids(known), 0)
  flipped = [labels.flip_classes(*pair) for pair in zip(r['flip_in'], r['flip_rolls'], strict=True)]
  r.check('flip_out', np.stack(flipped), 0)
