"""Scores subjects on a data set: one pass over the batches, every value kept per image.

A result depends on the examples, the states and the key alone: neither on the batch size nor on
the number of devices or hosts, since draws are keyed by example and sums are added on the host.
Letters: B examples of a batch, I images.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import sharding
from car_jax.errors import UserError
from car_jax.evaluate import catalogue, predict, score, texts
from car_jax.evaluate.predict import READERS, Prediction, Subject
from car_jax.evaluate.results import Results

Batches = Iterable[Mapping[str, np.ndarray]]


class Evaluator:
  """Compiled functions for one spec on one kind of data; call it as often as there are states.

  spec: see catalogue.DEFAULTS. info: the data set's DataInfo. readers: adds the row of the readers'
  own floor. detail: keeps what the figures of a report need. Raises UserError for a wrong spec.
  """

  def __init__(
    self,
    spec: Mapping[str, Any],
    info: Any,
    *,
    mesh: Any = None,
    detail: bool = False,
    readers: bool = False,
  ):
    self.plan, self.info = catalogue.plan(spec, info), info
    self.mesh = mesh or sharding.make_mesh()
    everywhere = sharding.replicated(self.mesh)
    self._score = jax.jit(
      functools.partial(score.score, self.plan, detail),
      static_argnums=0,
      out_shardings=everywhere,
    )
    self._census = jax.jit(
      functools.partial(score.census, info.num_classes, self.plan.ignore), out_shardings=everywhere
    )
    self._everywhere = jax.jit(lambda tree: tree, out_shardings=everywhere)
    self._compiled: dict[Callable, Callable] = {}
    self._rows: list[Subject] = []
    if readers:
      note = 'the floor: masks drawn from the same readers that they are scored against'
      draw = predict.draw_readers(info.num_classes, self.plan.ignore)
      self._rows = [Subject(READERS, draw, None, note, summarised=True)]

  def __call__(
    self,
    subjects: Sequence[Subject],
    batches: Batches,
    *,
    rng: jax.Array,
    progress: Callable[[int], None] | None = None,
    save: Any = None,
  ) -> Results:
    """Scores every subject on every valid row of batches (this process's rows, numpy).

    `progress(k)` is called after each batch of k images; `save` (a save.Saver) gets all
    predictions. Every process returns the same Results. Raises UserError where there is no image,
    or none with a pixel that counts.
    """
    rows = [*subjects, *self._rows]
    if len({s.name for s in rows}) < len(rows):
      raise ValueError(f'names of subjects must differ: {[s.name for s in rows]}')
    began, parts = time.perf_counter(), []
    for part in self._parts(rows, batches, rng, save):
      parts.append(part)
      if progress is not None:
        progress(len(part['id']))
    if not sum(len(part['id']) for part in parts):
      raise UserError('nothing to evaluate: the split has no image\n  choose another split')
    join = lambda *x: np.concatenate(x)
    labels = join(*(p['labels'] for p in parts))
    if not (labels[:, -2] > 0).any():
      raise UserError(
        f'nothing to evaluate: in all {len(labels):,} images of the split every pixel has the '
        f'ignored label {self.plan.ignore}\n  choose another split, or prepare labels for it'
      )
    ids = join(*(p['id'] for p in parts))
    groups = join(*(p['group'] for p in parts)) if 'group' in parts[0] else None
    if groups is not None and len(np.unique(groups)) == len(ids):
      groups = None  # one image each: nothing to keep together
    return Results(
      plan=self.plan,
      info=self.info,
      ids=ids,
      groups=groups,
      batch=np.repeat(np.arange(len(parts)), [len(p['id']) for p in parts]),
      scores={s.name: jax.tree.map(join, *(p['scores'][s.name] for p in parts)) for s in rows},
      notes={s.name: s.note for s in rows},
      labels=labels,
      says={s.name: s.says for s in rows},
      seconds=time.perf_counter() - began,
    )

  def _parts(self, rows, batches, rng, save) -> Iterator[dict[str, Any]]:
    """Per batch: ids, groups and scores of its valid rows, fetched while the next one computes."""
    waiting = None
    for host in batches:
      batch, scores = sharding.place_batch(host, self.mesh), {}
      if save is not None:
        labels = self._saved_labels(batch)
        save.examples(texts.decoded(self.fetch(texts.placed(host, self.mesh))['id']))
        save.readers(*self.fetch((labels, batch['label_weight'], batch['valid'])))
      for subject in rows:
        prediction = self.predict(subject, batch, rng)
        scores[subject.name] = self._score(subject.says, prediction, batch)
        if save is not None:
          save.prediction(subject.name, *self.fetch((prediction, batch['valid'])))
          for kind in set(save.kinds) & set(subject.own):
            outputs = self._own(subject.own[kind])(subject.state, batch)
            save.own(subject.name, kind, *self.fetch((outputs, batch['valid'])))
      parts = scores, self._census(batch), batch['valid'], texts.placed(host, self.mesh)
      device = self._everywhere(parts)
      if waiting is not None:
        yield _valid_rows(*jax.device_get(waiting))
      waiting = device
    if waiting is not None:
      yield _valid_rows(*jax.device_get(waiting))

  def predict(self, subject: Subject, batch: Any, rng: jax.Array) -> Prediction:
    """plan.samples draws for each example of a placed batch, split over the mesh like it."""
    f = subject.predict
    if f not in self._compiled:
      ignore = self.plan.ignore  # a class like others, or no class at all
      ignore = None if ignore is not None and ignore >= self.info.num_classes else ignore
      run: Any = lambda state, batch, rng: f(state, batch, rng, self.plan.samples)
      if not subject.summarised:
        run = functools.partial(predict.predict, f, self.plan.samples, self.plan.chunk, ignore)
      self._compiled[f] = jax.jit(run, out_shardings=sharding.split(self.mesh))
    return self._compiled[f](subject.state, batch, rng)

  def shapes(self, subject: Subject, batch: Any, rng: jax.Array) -> None:
    """What `predict` and the scores do with a batch, by shapes alone; raises what they raise."""
    run = lambda state, batch: self.predict(dataclasses.replace(subject, state=state), batch, rng)
    score = functools.partial(self._score, subject.says)
    jax.eval_shape(score, jax.eval_shape(run, subject.state, batch), batch)

  def _own(self, function: Callable) -> Callable:
    if function not in self._compiled:
      self._compiled[function] = jax.jit(function, out_shardings=sharding.split(self.mesh))
    return self._compiled[function]

  def _saved_labels(self, batch: Any) -> jax.Array:
    """The readers' labels, with the data set's own label on unknown objects."""
    if 'unknown' not in batch:
      return batch['labels']
    return jnp.where(batch['unknown'][:, None], self.info.unknown_label, batch['labels'])

  def fetch(self, tree: Any) -> Any:
    """Device arrays split over the mesh -> numpy arrays of the global batch, on every process."""
    return jax.device_get(self._everywhere(tree))


def _valid_rows(
  scores: Any, census: np.ndarray, valid: np.ndarray, coded: dict[str, np.ndarray]
) -> dict[str, Any]:
  keep = np.asarray(valid, bool)
  rows = {name: texts.decoded(value[keep]) for name, value in coded.items()}
  return rows | {
    'labels': np.asarray(census, np.float64)[keep],
    'scores': {
      subject: jax.tree.map(lambda x: x[keep], score.widened(values))
      for subject, values in scores.items()
    },
  }
