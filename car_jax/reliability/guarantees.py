"""Guarantees of a study: what they promise, and thresholds that keep them on calibrate_on.

By conformal risk control (metrics/conformal.py): if the images of a set and of calibrate_on are
exchangeable, the expected loss of the next image is at most alpha. The unit is the image.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from car_jax.data.labels import IGNORED_TRAIN_ID as IGNORED
from car_jax.errors import UserError, nearest
from car_jax.evaluate.cell import Cell
from car_jax.metrics import conformal
from car_jax.metrics.conformal_counts import GRID, STEPS
from car_jax.metrics.prediction_sets import SetKind, SetLoss, SetLosses, SetSize
from car_jax.options import Group, Share


@dataclasses.dataclass(frozen=True)
class Guarantee(Group):
  """config.guarantees.NAME: the mean loss of images is at most alpha, by a threshold for each model
  and calibrator that is chosen on calibrate_on."""

  loss: Literal['miscoverage', 'balanced', 'fnr'] = 'miscoverage'
  """Of an image the share of pixels whose set lacks the label; the mean of that over classes; the
  share of a foreground that the mask misses."""
  alpha: Share = 0.1
  """What the mean loss is to stay below."""
  classes: tuple[str, ...] = ()
  """Of fnr: names of the classes that are the foreground; empty for all but the first."""


DEFAULT: dict[str, Any] = {'miscoverage10': dataclasses.asdict(Guarantee())}


@dataclasses.dataclass(frozen=True)
class Chosen:
  """The threshold of one guarantee, model and calibrator, and the scores of its sets.

  losses [n] and groups [n]: of the calibration images that have a loss, at the threshold.
  """

  choice: conformal.Choice
  losses: np.ndarray
  groups: np.ndarray
  loss: SetLoss
  size: SetSize

  @property
  def threshold(self) -> np.float32:
    return np.float32(self.choice.value)


def checked(given: Mapping[str, Mapping[str, Any]], calibrated: bool) -> dict[str, Guarantee]:
  """The study's guarantees; calibrated: whether it has calibrate_on. Raises UserError."""
  out = {name: Guarantee(**spec) for name, spec in given.items()}
  if out and not calibrated:
    if given == DEFAULT:
      return {}
    raise UserError(
      f'guarantee {next(iter(out))!r} has no images to choose its threshold on\n'
      '  set config.calibrate_on, or leave it out'
    )
  for name, g in out.items():
    if g.classes and g.loss != 'fnr':
      raise UserError(
        f'guarantee {name!r} is of {g.loss}, which has no foreground\n'
        "  leave its classes out, or set loss='fnr'"
      )
  return out


def kinds(guarantees: Mapping[str, Guarantee], classes: Sequence[str]) -> dict[str, SetKind]:
  """By guarantee, with ids in place of names of classes. Raises UserError for an unknown one."""
  out = {}
  for name, g in guarantees.items():
    if unknown := [c for c in g.classes if c not in classes]:
      raise UserError(
        f'guarantee {name!r} has no class {unknown[0]!r}\n{nearest(unknown[0], classes)}'
      )
    foreground = g.classes or tuple(classes[1:])
    ids = tuple(classes.index(c) for c in foreground) if g.loss == 'fnr' else ()
    out[name] = SetKind(g.loss, ids, IGNORED)
  return out


def sources(of: Mapping[str, SetKind]) -> tuple[SetLosses, ...]:
  """What is counted of calibration images: once for each kind of loss, whatever the alphas."""
  return tuple(dict.fromkeys(map(SetLosses, of.values())))


def choose(
  counts: Cell, guarantees: Mapping[str, Guarantee], of: Mapping[str, SetKind]
) -> dict[str, Chosen]:
  """Of each guarantee the threshold with the smallest sets that keep it on calibration images.

  It is an edge of a grid that was fixed before, so that the guarantee holds as it stands, and at
  most 1 / 1024 below the best one. None for predictions without a confidence.
  """
  if not counts.traits.confidence:
    return {}
  out = {}
  for name, g in guarantees.items():
    rows = counts.rows[SetLosses(of[name]).source_name]
    there = rows['images'] > 0
    losses = rows['sum'][there]
    added = conformal.Losses(losses.sum(0), len(losses), int(np.sum(~there)))
    choice = conformal.choose(GRID, added, g.alpha)
    at = losses[:, round(choice.value * STEPS)]
    how: dict[str, Any] = dict(guarantee=name, kind=of[name])
    two = SetLoss(name=f'loss of {name}', **how), SetSize(name=f'size of {name}', **how)
    out[name] = Chosen(choice, at, counts.group[there], *two)
  return out


def warnings(
  guarantees: Mapping[str, Guarantee], chosen: Iterable[Mapping[str, Chosen]]
) -> list[str]:
  """A line for each guarantee that too few calibration images allow nothing of."""
  found = {name: c.choice for of in chosen for name, c in of.items() if c.choice.limited}
  return [
    f'guarantee {name!r}: {choice.images} images of calibrate_on allow an alpha of '
    f'{conformal.least_alpha(choice.images):.2g} at least, and {guarantees[name].alpha:g} is asked '
    'for; every class is in every set'
    for name, choice in found.items()
  ]
