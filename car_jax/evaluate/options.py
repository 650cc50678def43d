"""What config.evals and config.report may say; without jax, so that a config is read at once."""

import dataclasses
from typing import Annotated, Literal

from car_jax.options import Group, Range

MOST_SAMPLES = 2**16
Samples = Annotated[int, Range(1, MOST_SAMPLES)]


@dataclasses.dataclass(frozen=True)
class Evaluation(Group):
  """config.evals.NAME and config.report: what is scored, and by which conventions."""

  split: str = ''
  """The split of the data set; the report's is validation where it names none."""
  samples: Samples = 16
  """Segmentations that are drawn for each image."""
  metrics: tuple[str, ...] = ('ged16',)
  """Names of scores, such as ged16 or hm_iou16[absent=skip]; see docs/metrics.md."""
  classes: str | tuple[str | int, ...] = ''
  """fg, all, flips, or names of classes; empty: fg for two classes, flips for flips, else all."""
  absent: Literal['one', 'skip', 'zero'] = 'one'
  """IoU of a class that neither of two maps has."""
  ignored: Literal['void', 'class'] = 'void'
  """The ignored label: nobody knows what is there, or a class that models emit as with CAR."""
  chunk: Samples = 32
  """Samples predicted at a time."""
  bins: Annotated[int, Range(1, 10_000)] = 15
  """Bins of calibration errors."""
