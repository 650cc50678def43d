"""A data set of arrays in memory, or of anything that gives arrays when it is indexed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.data.sources import DataInfo, Dataset, Source, colours, sliced, split_name
from car_jax.errors import UserError, nearest


def dataset(
  splits: Mapping[str, Sequence[Mapping[str, Any]]],
  class_names: Sequence[str],
  *,
  name: str = 'in memory',
  palette: Sequence[tuple[int, int, int]] = (),
  ignore_label: int | None = None,
  readers: int = 0,
) -> Dataset:
  """Split name -> its records, as a data set for loop.train or for Data.records.

  A record holds image, uint8 [H, W], [H, W, 1] or [H, W, 3], and labels, whole numbers below 256,
  [H, W] or [M, H, W] of M readers; and perhaps id, a text that no other record has, and group, what
  splits must not share (a patient, a scene). palette: a colour for each class. readers: the largest
  M; 0 reads all records once to know it. Raises UserError for what is no record, when it is read.
  """
  records = {split: Records(of, split) for split, of in splits.items()}
  if not any(map(len, records.values())):
    raise UserError('a data set in memory has no record\n  give dict(train=[dict(image=..), ..])')
  info = DataInfo(
    name=name,
    num_classes=len(class_names),
    class_names=tuple(class_names),
    palette=tuple(palette) or colours(len(class_names)),
    readers=readers or max(len(rs[i]['labels']) for rs in records.values() for i in range(len(rs))),
    ignore_label=ignore_label,
  )

  def split(text: str) -> Records:
    wanted = split_name(text)
    if wanted not in records:
      raise UserError(f'no split {wanted!r} in {name}\n{nearest(wanted, records)}')
    return dataclasses.replace(records[wanted], chosen=sliced(range(len(records[wanted])), text))

  return Dataset(info, split)


@dataclasses.dataclass(frozen=True)
class Records(Source):
  """Records as the pipeline takes them, checked."""

  source: Sequence[Mapping[str, Any]]
  split: str
  chosen: Sequence[int] | None = None

  def __len__(self) -> int:
    return len(self.source if self.chosen is None else self.chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    index = int(index) if self.chosen is None else self.chosen[index]
    record = self.source[index]
    name = str(record.get('id', f'{self.split}-{index}'))
    image, labels = np.asarray(record.get('image')), np.asarray(record.get('labels'))
    image = image[..., None] if image.ndim == 2 else image
    labels = labels[None] if labels.ndim == 2 else labels
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
      raise UserError(
        f'record {name}: image is {image.dtype} {image.shape}; it is uint8, of 1 or 3 channels'
      )
    if labels.dtype.kind not in 'iub' or labels.shape[1:] != image.shape[:2]:
      raise UserError(
        f'record {name}: labels are {labels.dtype} {labels.shape}; they are whole numbers '
        f'[readers, {image.shape[0]}, {image.shape[1]}]'
      )
    if labels.min() < 0 or labels.max() > 255:
      raise UserError(f'record {name}: labels hold {labels.min()} to {labels.max()}, not 0 to 255')
    group = str(record.get('group', name))
    return dict(image=image, labels=labels.astype(np.uint8), id=name, group=group)
