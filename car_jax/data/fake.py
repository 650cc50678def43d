"""Small images made in memory on which readers disagree: for tests, smoke runs, a first look."""

import dataclasses
from typing import Annotated, Any

import numpy as np

from car_jax.data.options import Data
from car_jax.data.sources import DataInfo, Dataset, Listed, colours, sliced, split_name
from car_jax.errors import UserError, nearest
from car_jax.options import Count, Positive, Range

SIZES = {'train': 4, 'validation': 1, 'test': 1}  # shares of `count`, times a quarter


@dataclasses.dataclass(frozen=True)
class Fake(Data):
  """The made-up data set as config.data names it."""

  size: Count = 32
  """Side of the images, and of what training sees of them; 0 for 32 and whole images."""
  count: Positive = 32
  """Images of the training split; the others have a quarter each."""
  num_classes: Annotated[int, Range(2, 254)] = 2
  """The background and discs of the other classes."""
  readers: Annotated[int, Range(1, 1024)] = 4
  """Readers, each with discs of radii of their own."""
  black_box: bool = False
  """With another model's prediction, which is one more reader."""

  def records(self) -> Dataset:
    """Discs of every class on noise; each reader draws other radii, or no disc at all."""
    info = DataInfo(
      name='fake',
      num_classes=self.num_classes,
      class_names=('background', *(f'disc {c}' for c in range(1, self.num_classes))),
      palette=colours(self.num_classes),
      readers=self.readers,
      black_box=self.black_box,
      licence='public domain',
    )

    def split(text: str) -> Listed:
      name = split_name(text)
      if name not in SIZES:
        raise UserError(f'no split {name!r} in the fake data set\n{nearest(name, SIZES)}')
      n = max(1, self.count * SIZES[name] // 4)
      return Listed(sliced([_record(f'{name}-{i}', self.size or 32, info) for i in range(n)], text))

    return Dataset(info, split)


def open_dataset(**options: Any) -> Dataset:
  """The data set with these options of `Fake`."""
  return Fake(**options).records()


def _record(name: str, size: int, info: DataInfo) -> dict:
  rng = np.random.default_rng([*name.encode()])
  y, x = np.mgrid[:size, :size]
  labels = np.zeros((info.readers + info.black_box, size, size), np.uint8)
  image = rng.normal(90, 15, (size, size))
  for c in range(1, info.num_classes):
    cy, cx = rng.uniform(0.25, 0.75, 2) * size
    radius = rng.uniform(0.1, 0.25) * size
    distance = np.hypot(y - cy, x - cx)
    certain = rng.uniform(0.4, 1)
    for m in range(len(labels)):
      if rng.random() < certain:
        labels[m][distance < radius * rng.uniform(0.7, 1.3)] = c
    image += 110 * certain / (1 + np.exp((distance - radius) / (0.1 * radius + 0.5)))
  grey = np.clip(image, 0, 255).astype(np.uint8)[..., None]
  record = {'image': grey, 'labels': labels[: info.readers], 'id': name, 'group': name}
  return record | ({'black_box': labels[-1]} if info.black_box else {})
