"""A picture of what SAC learns from: views of target images and what the teacher makes of them.

Letters: T views of each image, H x W pixels.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from car_jax.evaluate import pictures
from car_jax.methods.train_state import full_size
from car_jax.report.adaptation import COLUMNS


def views(path: str, data_dir: str, images: int = 2) -> bytes:
  """PNG of a run's first target images: a row for each view, the columns COLUMNS.

  What the teacher does not label is grey; so is the truth where the view leaves the image.
  """
  from car_jax.evaluate import checkpointed

  loaded = checkpointed.load(path)
  batch, palette = training_batch(loaded.config, data_dir, images)
  teacher = labelled(loaded, batch)
  none, rows = -1, []
  for k in range(len(batch['target'])):
    maps = {name: pictures.class_map(teacher[name][k], palette) for name in ('predicted', 'labels')}
    truth = batch['target_label'][k]
    truth = pictures.class_map(np.where(truth < len(palette), truth, none), palette)
    seen, noisy = (pictures.grey(batch[key][k]) for key in ('target', 'student'))
    row = pictures.strip([seen, maps['predicted'], maps['labels'], noisy, truth])
    gap = 12 if k and k % int(batch['views'][k]) == 0 else 4
    rows += [np.full((gap, row.shape[1], 3), 255, np.uint8)] * bool(k) + [row]
  return pictures.png(with_titles(np.concatenate(rows)))


def training_batch(config: Any, data_dir: str, images: int) -> tuple[dict[str, np.ndarray], Any]:
  """One batch of the first `images` target images of a run of this config, and the palette.

  However many images the run's own batches have, and however many devices share them.
  """
  from car_jax.data import adaptation, opening

  data = config.data.to_dict()
  data['data_dir'] = data_dir or data['data_dir']
  data['source']['data_dir'] = data_dir or data['source'].get('data_dir', '')
  data['target']['groups'], data['batch'] = images, 1
  opened = opening.open_dataset(data)
  stream = opened.split(data['train'])
  return adaptation.Steps(stream, config.seed, 0, 0, 1)[0], opened.info.palette


def labelled(loaded: Any, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The class that the teacher says of each view [T, H, W], and its labels, -1 for none."""
  method, state = loaded.method, loaded.state

  @jax.jit
  def both(state: Any, batch: Any) -> dict[str, jax.Array]:
    out = method.net.apply(state.teacher.variables, batch['target'], train=False)
    return {'predicted': full_size(out).argmax(-1), 'labels': method.labelled(state, batch)[0]}

  return jax.device_get(both(state, {k: v for k, v in batch.items() if k != 'views'}))


def with_titles(picture: np.ndarray) -> np.ndarray:
  """The columns' names above a picture of as many strips."""
  import cv2

  head = np.full((18, picture.shape[1], 3), 255, np.uint8)
  for k, title in enumerate(COLUMNS):
    at = (k * (picture.shape[1] + 4) // len(COLUMNS) + 2, 13)
    cv2.putText(head, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (30, 30, 30), 1, cv2.LINE_AA)
  return np.concatenate([head, picture])
