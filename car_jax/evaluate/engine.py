"""Predictions in, cells out: the one loop in which everything is scored.

A result depends on the examples, the predictions and the metrics alone: neither on the batch size
nor on the number of devices or hosts, since sums of each image are added on the host. Letters: B
images of a batch, H x W pixels, M readers, C classes, D features, S pixels.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import interrupt
from car_jax.errors import UserError
from car_jax.evaluate.cell import Cell
from car_jax.evaluate.predict import Prediction
from car_jax.metrics.base import Metric, Outputs, Source, Traits

LOGITS = Traits(draws=False, logits=True)


@dataclasses.dataclass(frozen=True)
class Row:
  """What one subject says of a batch; through `calibrator`, where there is one.

  given: what the subject adds to the batch for its scores, such as thresholds of its own.
  """

  prediction: Prediction
  traits: Traits
  calibrator: Any = None
  given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Predicted:
  """A batch that subjects have predicted, on the devices and split over the mesh by image.

  batch: labels [B, M, H, W] int32, label_weight [B, M], valid [B] bool; and where there are:
  unknown [B, H, W] bool, black_box [B, H, W], image [B, h, w, 3] in [-1, 1], features [B, D],
  pixels [B, S] int32, those that are scored. ids, groups [B] str and keep [B] bool, False for rows
  that pad the batch: of all processes, on each. fetch: what was computed of the arrays -> numpy.
  """

  batch: Mapping[str, Any]
  rows: Mapping[str, Row]
  ids: np.ndarray
  groups: np.ndarray
  keep: np.ndarray
  fetch: Callable[[Any], Any] = jax.device_get


def of_logits(
  logits: Any,
  labels: Any,
  ids: Sequence[str],
  *,
  groups: Sequence[str] | None = None,
  name: str = 'logits',
  traits: Traits = LOGITS,
  **more: Any,
) -> Predicted:
  """Logits [B, H, W, C] and their labels [B, H, W] as a batch of one row.

  more: what else a batch may have, and disagreement [B, H, W] in nats.
  """
  labels = jnp.asarray(labels)
  rows = {name: Row(Prediction(logits=logits, disagreement=more.pop('disagreement', None)), traits)}
  keep = np.ones(len(labels), bool)
  batch = dict(labels=labels[:, None], label_weight=jnp.ones((len(labels), 1)), valid=keep) | more
  names = np.asarray(ids), np.asarray([''] * len(labels) if groups is None else groups)
  return Predicted(batch, rows, *names, keep)


def count(
  stream: Iterable[Predicted],
  metrics: Sequence[Metric],
  *,
  details: Callable[[str, Traits], tuple[Source, ...]] = lambda name, traits: (),
  progress: Callable[[int], None] | None = None,
) -> dict[str, Cell]:
  """A cell for each row of a stream, in which every batch has the same rows.

  details: sums beyond those of the metrics. `progress(k)` is called after each batch of k images.
  Sums are fetched while the next batch computes. Raises UserError for a stream without images, and
  for images whose predictions are of another kind than those before; interrupt.Stopped between two
  batches where several processes stop.
  """
  cells: dict[str, Cell] = {}
  waiting: tuple[Predicted, dict[str, Any]] | None = None
  for predicted in stream:
    states = {}
    for name, row in predicted.rows.items():
      cell = cells.setdefault(name, Cell(row.traits))
      _check_kind(cell, row.traits, predicted)
      sources = sources_of(metrics, row.traits, details(name, row.traits))
      batch = {**predicted.batch, **row.given}
      states[name] = sources, _states(sources, row.calibrator, row.prediction, batch)
    if waiting is not None:
      _add(cells, *waiting, progress)
    if interrupt.all_stop_here():
      raise interrupt.Stopped
    waiting = predicted, states
  if waiting is not None:
    _add(cells, *waiting, progress)
  if not any(len(cell.ids) for cell in cells.values()):
    raise UserError('nothing to evaluate: the split has no image\n  choose another split')
  return cells


def sources_of(
  metrics: Sequence[Metric], traits: Traits, details: tuple[Source, ...] = ()
) -> tuple[Source, ...]:
  """The different sources of the scores that such predictions have, and of details."""
  used = [m.source for m in metrics if not m.left_out(traits)]
  return tuple({s.source_name: s for s in (*details, *used)}.values())


@functools.partial(jax.jit, static_argnames=('sources',))
def _states(sources, calibrator, prediction, batch) -> tuple[Any, ...]:
  outputs = Outputs(prediction if calibrator is None else calibrated(calibrator, prediction, batch))
  with jax.default_matmul_precision('highest'):
    return tuple(source.state(outputs, batch) for source in sources)


def calibrated(calibrator: Any, prediction: Prediction, batch: Mapping[str, Any]) -> Prediction:
  """Its logits [B, H, W, C] through a calibrator; one that needs the image needs it at their size.

  Single samples are not calibrated, so they are left out.
  """
  logits, image = Outputs(prediction).logits, batch.get('image')
  if image is not None and image.shape[1:3] != logits.shape[1:3]:
    image = jax.image.resize(image, (*logits.shape[:3], 3), 'bilinear', antialias=False)
  with jax.default_matmul_precision('highest'):
    logits = calibrator.apply(logits, image=image, features=batch.get('features'))
  return Prediction(logits=logits, disagreement=prediction.disagreement)


def _check_kind(cell: Cell, traits: Traits, predicted: Predicted) -> None:
  if cell.traits != traits:
    raise UserError(
      f'{predicted.ids[0]} has {_described(traits)}, images before it {_described(cell.traits)}\n'
      '  score logits, probabilities and samples one by one'
    )


def _described(traits: Traits) -> str:
  if not traits.confidence:
    return 'classes without a confidence'
  if traits.logits:
    return 'logits'
  return 'samples' if traits.disagreement else 'probabilities'


def _add(cells: dict[str, Cell], predicted: Predicted, states: Any, progress: Any) -> None:
  keep = np.asarray(predicted.keep, bool)
  fetched = predicted.fetch({name: values for name, (_, values) in states.items()})
  ids, groups = (np.asarray(x)[keep] for x in (predicted.ids, predicted.groups))
  for name, (sources, _) in states.items():
    rows = jax.tree.map(lambda x: np.asarray(x)[keep], fetched[name])
    cells[name].add(sources, rows, ids, groups)
  if progress is not None:
    progress(int(keep.sum()))


BYTES = 256  # of an id or group


def gathered(
  host: Mapping[str, np.ndarray], place: Callable[[Any], Any], fetch: Callable[[Any], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Ids, groups [B] str ('' where there are none) and valid [B] bool of all processes' rows.

  place: this process's rows -> global arrays; fetch: these -> numpy, the same on every process.
  """
  arrays = {'valid': host['valid'], **coded(host)}
  if jax.process_count() > 1:
    arrays = fetch(place(arrays))
  ids = decoded(arrays['id'])
  groups = decoded(arrays['group']) if 'group' in arrays else np.full(len(ids), '')
  return ids, groups, np.asarray(arrays['valid'], bool)


def coded(host: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The ids and groups of a batch, each [B, BYTES] uint8."""
  return {k: _coded(host[k]) for k in ('id', 'group') if k in host}


def decoded(rows: np.ndarray) -> np.ndarray:
  """[B, BYTES] uint8 -> [B] str."""
  return np.char.decode(np.ascontiguousarray(rows).view(f'S{BYTES}')[:, 0], 'utf-8')


def _coded(texts: np.ndarray) -> np.ndarray:
  """[B] str -> [B, BYTES] uint8, padded with zeros."""
  raw = np.char.encode(np.asarray(texts, str), 'utf-8')
  if raw.itemsize > BYTES:
    longest = max(texts, key=lambda text: len(str(text).encode()))
    raise UserError(f'an id has more than {BYTES} bytes: {longest}\n  shorten the file names')
  return raw.astype(f'S{BYTES}').view(np.uint8).reshape(len(raw), BYTES)
