"""Published scores as data: what a config says of a paper, printed beside our own numbers.

A config has them in `published`, by names of its own; a run keeps them, and so does its report.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from car_jax.options import Group, Range

Kind = Literal['training', 'weights']


@dataclasses.dataclass(frozen=True)
class Score(Group):
  """config.published.NAME: one number of a paper, or of weights that its authors released."""

  score: str
  """The score's name in reports, such as ged16."""
  value: float
  """In the unit of reports: a share where papers print per cent."""
  spread: float | None = None
  """What is printed after ±."""
  source: str = ''
  """Where it is published: paper and table."""
  convention: str = ''
  """How it was computed."""
  of: Kind = 'training'
  """Whether it is of a training, or of the very weights that were released."""
  tolerance: Annotated[float, Range(0.0, 10.0)] = 0.01
  """How far a repetition may be off, either way."""
  data: str = ''
  """The prepared data set that it is of; it stands beside scores of this one alone."""
  split: str = ''
  """The split that it is of."""

  @property
  def text(self) -> str:
    """'0.264 ± 0.002'."""
    return f'{self.value:.4g}' + ('' if self.spread is None else f' ± {self.spread:.2g}')


def scores(given: Mapping[str, Any] | None) -> list[Score]:
  """The entries of a completed config.published, in the order of their names."""
  return [Score(**entry) for _, entry in sorted((given or {}).items())]


def beside(
  given: Mapping[str, Any] | None, data: str, split: str, names: Collection[str]
) -> list[Score]:
  """Those that may stand beside scores of these `names`, of a split of a data set."""
  fits = lambda s: (s.data in ('', data)) and (s.split in ('', split)) and s.score in names
  return [score for score in scores(given) if fits(score)]
