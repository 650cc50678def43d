"""The images on which a model does worst: predicted once more and drawn."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from car_jax import files, folders, pictures
from car_jax.errors import UserError
from car_jax.evaluate.engine import Predicted
from car_jax.metrics import scores
from car_jax.metrics.base import Outputs
from car_jax.reliability.document import shifted_most
from car_jax.reliability.segmenters import digest
from car_jax.reliability.study import PLAIN, Cell, Study
from car_jax.report import rendering

SAVED = 'worst.json'
WRONG, RIGHT, VOID, STRANGE = (230, 60, 40), (225, 225, 225), (128, 128, 128), (150, 90, 220)


def images(study: Study, cells: Sequence[Cell]) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
  """Entries of study.json and pictures by name: config.worst images of a model, of the first set
  and of the strongest shift. `cells` are the model's. All processes take part."""
  first, last = next(iter(study.plan.sets)), shifted_most(study, cells)
  entries: list[dict[str, Any]] = []
  drawn: dict[str, bytes] = {}
  for c in cells:
    if c.calibrator == PLAIN and c.set in {first, last} and study.plan.config.worst:
      rows, pngs = _of_cell(study, c)
      entries += rows
      drawn |= pngs
  return entries, drawn


def chosen(c: Cell, count: int) -> dict[int, str]:
  """Index -> why: the lowest accuracies, and the image that is most sure of what is wrong."""
  x = c.pixels
  seen = x['confusion'].sum((1, 2))
  right = np.einsum('ikk->i', x['confusion'])
  accuracy = np.where(seen > 0, right / np.maximum(seen, 1), np.inf)
  excess = x['image'][:, 0] / np.maximum(x['pixels'], 1) - accuracy
  out = {int(i): 'lowest pixel accuracy' for i in np.argsort(accuracy)[: max(1, count - 1)]}
  if count > 1 and c.confident:
    rest = [int(i) for i in np.argsort(-excess) if int(i) not in out]
    out |= dict.fromkeys(rest[:1], 'most overconfident')
  return {i: why for i, why in out.items() if np.isfinite(accuracy[i])}


def _of_cell(study: Study, c: Cell) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
  """From the files of an earlier run, if they are of the same images and model."""
  folder = study.out / 'worst' / folders.slug(c.model) / folders.slug(c.set)
  wanted = chosen(c, study.plan.config.worst)
  segmenter, image_set = study.segmenter(c.model), study.plan.sets[c.set]
  about = segmenter.images(image_set)
  seen = (
    segmenter.fingerprint,
    segmenter.data_print(image_set),
    about.names,
    about.palette,
    c.model,
    c.set,
  )
  mark = digest(seen, study.plan.config.seed, {str(k): v for k, v in wanted.items()})
  if (there := _saved(folder, mark)) is not None:
    return there
  prefix = f'{folders.slug(c.model)}-{folders.slug(c.set)}-'
  entries: list[dict[str, Any]] = []
  images: dict[str, bytes] = {}
  for batch in segmenter.batches(image_set, only=list(wanted)):
    fetched = batch.fetch(_arrays(batch))
    for row in np.flatnonzero(batch.keep):
      i = list(wanted)[len(entries)]
      drawn = draw({k: np.asarray(v[row]) for k, v in fetched.items()}, np.asarray(about.palette))
      files = {k: f'{prefix}{len(entries)}-{k}.png' for k in drawn}
      images |= {files[k]: rendering.png(v) for k, v in drawn.items()}
      entries.append(_entry(c, i, str(batch.ids[row]), wanted[i], files))
  if jax.process_index() == 0:
    index = dict(print=mark, entries=entries, crc=digest(entries))
    # the text comes last: where it is, the pictures are whole
    folders.write(folder, images | {SAVED: json.dumps(index).encode()})
  return entries, images


def _arrays(predicted: Predicted) -> dict[str, Any]:
  """What `draw` takes, [B, ..]."""
  (row,) = predicted.rows.values()
  batch = predicted.batch
  shown = {k: batch[k] for k in ('image', 'unknown') if k in batch}
  return shown | {'logits': Outputs(row.prediction).logits, 'labels': batch['labels'][:, 0]}


def _saved(folder: pathlib.Path, mark: str) -> tuple[list[dict[str, Any]], dict[str, bytes]] | None:
  """What was drawn before, if it is whole and of this mark; else it is drawn again."""
  try:
    saved = files.read_json(folder / SAVED, keys=('print', 'entries', 'crc'))
    if (saved['print'], saved['crc']) != (mark, digest(saved['entries'])):
      return None
    names = [n for e in saved['entries'] for n in e['pictures'].values()]
    for name in names:
      pictures.open_picture(folder / name)  # whole, by its checksums
    return saved['entries'], {n: files.read_bytes(folder / n) for n in names}
  except UserError:
    return None


def _entry(c: Cell, i: int, name: str, why: str, names: dict[str, str]) -> dict[str, Any]:
  x = {k: v[i] for k, v in c.pixels.items()}
  values = {
    'pixel_accuracy': float(np.trace(x['confusion']) / max(x['confusion'].sum(), 1)),
  }
  if c.confident:
    values['confidence'] = float(x['image'][0] / max(x['pixels'], 1))
  return dict(model=c.model, set=c.set, id=name, why=why, values=values, pictures=names)


def draw(arrays: dict[str, np.ndarray], palette: np.ndarray) -> dict[str, np.ndarray]:
  """logits, labels and perhaps image and unknown of one image -> pictures by kind."""
  probs = np.asarray(jax.nn.softmax(arrays['logits']))
  predicted, labels = probs.argmax(-1), arrays['labels']
  entropy = np.asarray(scores.entropy(probs)) / np.log(probs.shape[-1])
  void = (labels < 0) | (labels >= probs.shape[-1])
  error = np.where((predicted == labels)[..., None], RIGHT, WRONG)
  error = np.where(void[..., None], VOID, error)
  if 'unknown' in arrays:
    error = np.where(arrays['unknown'][..., None], STRANGE, error)
  out = {'image': rendering.grey(arrays['image'])} if 'image' in arrays else {}
  return out | {
    'label': rendering.class_map(labels, palette),
    'prediction': rendering.class_map(predicted, palette),
    'error': rendering.thin(error.astype(np.uint8)),
    'uncertainty': rendering.heat(rendering.thin(entropy)),
  }
