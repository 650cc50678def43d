"""From predicted batches to cells, through any number of calibrators at once.

Letters: B images, H x W pixels, N of them looked at, C classes, S pixels sampled of each image.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from car_jax.calibrate import drawn
from car_jax.calibrate.base import Sample, joined
from car_jax.data.labels import IGNORED_TRAIN_ID as IGNORED
from car_jax.errors import UserError
from car_jax.evaluate import engine
from car_jax.evaluate.cell import Cell
from car_jax.evaluate.census import Census
from car_jax.evaluate.engine import Predicted
from car_jax.metrics.base import Metric, Source
from car_jax.metrics.pixel_counts import PixelCounts


@dataclasses.dataclass(frozen=True)
class How:
  """sampled: so many random pixels of each image, 0 for all. seed: of the random pixels."""

  sampled: int = 0
  seed: int = 0


PIXELS = PixelCounts(ignore=IGNORED)


def cells(
  batches: Iterable[Predicted],
  metrics: Sequence[Metric],
  calibrators: Mapping[str, Any],
  how: How,
  *,
  given: Mapping[str, Mapping[str, Any]] | None = None,
  progress: Any = None,
) -> dict[str, Cell]:
  """A cell for each calibrator (None: the logits as they are), from one pass over the batches.

  Single pixels are always counted, since pages show more of them than their scores. given: what a
  calibrator's scores are told besides, such as thresholds.

  `progress(k)` is called after each batch of k images. Raises UserError for a set without images,
  or without a pixel that counts.
  """
  known = {m.source.source_name: m.source for m in metrics}
  pixels = known.get(PIXELS.source_name, PIXELS)
  stream = _through(batches, calibrators, how, given or {})
  out = engine.count(stream, metrics, details=lambda *_: (pixels,), progress=progress)
  if (labels := census_of(next(iter(out.values())))).ignored == labels.pixels:
    raise UserError(
      'nothing to score: every pixel of the set has the ignored label\n  choose another split, or '
      'look at its labels'
    )
  return out


def losses(
  batches: Iterable[Predicted],
  sources: tuple[Source, ...],
  calibrators: Mapping[str, Any],
  how: How,
  *,
  progress: Any = None,
) -> dict[str, Cell]:
  """As `cells`, of what thresholds are chosen from alone; of the same pixels as a set's cells."""
  stream = _through(batches, calibrators, how, {})
  return engine.count(stream, (), details=lambda *_: sources, progress=progress)


def _through(
  batches: Iterable[Predicted],
  calibrators: Mapping[str, Any],
  how: How,
  given: Mapping[str, Mapping[str, Any]],
) -> Iterator[Predicted]:
  """Batches of one subject, with a row for each calibrator, and the pixels that are looked at."""
  for predicted in batches:
    (row,) = predicted.rows.values()
    if len(calibrators) > 1:
      _check_confident(predicted)
    more: dict[str, Any] = {}
    if how.sampled:
      h, w = predicted.batch['labels'].shape[2:]
      more = {'pixels': drawn.pixels(predicted.ids, h * w, how.sampled, how.seed)}
    rows = {
      k: dataclasses.replace(row, calibrator=c, given=given.get(k, {}))
      for k, c in calibrators.items()
    }
    yield dataclasses.replace(predicted, rows=rows, batch={**predicted.batch, **more})


def census_of(cell: Cell) -> Census:
  """What the labels of the pixels that were looked at hold."""
  images = cell.rows[PIXELS.source_name]
  scored = int(images['scores'][:, 0].sum())  # every pixel but the ignored ones has an outcome
  pixels = int(images['pixels'].sum())
  return Census(images['confusion'].sum((0, 2)), pixels - scored, pixels)


def _check_confident(predicted: Predicted) -> None:
  (row,) = predicted.rows.values()
  if not row.traits.confidence:
    raise UserError(
      f'{predicted.ids[0]} is a map of classes, without a confidence that could be calibrated\n'
      '  leave the calibrators out, or give logits or probabilities'
    )


def sample(batches: Iterable[Predicted], how: How, *, progress: Any = None) -> Sample:
  """`how.sampled` random pixels of each image, to calibrate on: the published way of fitting."""
  parts = []
  for batch in batches:
    _check_confident(batch)
    parts.append(drawn.of_batch(batch, how.sampled, how.seed, IGNORED))
    if progress is not None:
      progress(parts[-1].images)
  if not parts:
    raise UserError('nothing to calibrate on: the set has no image')
  return joined(parts)
