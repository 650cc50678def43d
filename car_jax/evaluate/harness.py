"""The readers' evaluation: subjects that draw samples, against all readers of a data set.

Draws are keyed by example. Letters: B examples of a batch, I images.
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
from car_jax.evaluate import engine, plan, predict
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import READERS, Prediction, Subject
from car_jax.evaluate.results import Results
from car_jax.methods.base import ignored_class
from car_jax.metrics.base import Outputs, Source, Traits
from car_jax.metrics.of_probabilities import Diagram, FlipDetails, Votes
from car_jax.metrics.of_samples import Distances

Batches = Iterable[Mapping[str, np.ndarray]]


class Evaluator:
  """Compiled functions for one spec on one kind of data; call it as often as there are states.

  spec: see evaluate/options.py. info: the data set's DataInfo. readers: adds the row of the
  readers' own floor. detail: keeps what the figures of a report need. Raises UserError for a wrong
  spec.
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
    self.plan, self.info, self._detail = plan.plan(spec, info), info, detail
    self.mesh = mesh or sharding.make_mesh()
    self._everywhere = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(self.mesh))
    self._compiled: dict[Callable, Callable] = {}
    self._rows: list[Subject] = []
    if readers:
      note = 'the floor: masks drawn from the same readers that they are scored against'
      draw = predict.draw_readers(info.num_classes, self.plan.ignore)
      self._rows = [Subject(READERS, draw, None, note, summarised=True, label_maps=False)]

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
    began = time.perf_counter()
    stream = self._predicted(rows, batches, rng, save)
    details = functools.partial(self._details, rows[0].name if rows else '')
    cells = engine.count(stream, self.plan.metrics, details=details, progress=progress)
    results = Results(
      plan=self.plan,
      info=self.info,
      cells=cells,
      notes={s.name: s.note for s in rows},
      seconds=time.perf_counter() - began,
    )
    if not results.scorable.any():
      raise UserError(
        f'nothing to evaluate: in all {len(results.ids):,} images of the split every pixel has the '
        f'ignored label {self.plan.ignore}\n  choose another split, or prepare labels for it'
      )
    return results

  def _predicted(self, rows, batches, rng, save) -> Iterator[Predicted]:
    for host in batches:
      batch = sharding.place_batch(host, self.mesh)
      place = functools.partial(sharding.place_batch, mesh=self.mesh)
      ids, groups, keep = engine.gathered(host, place, self.fetch)
      if save is not None:
        save.examples(ids)
        labels = self._saved_labels(batch)
        save.readers(*self.fetch((labels, batch['label_weight'], batch['valid'])))
      predicted = {}
      for subject in rows:
        prediction = self.predict(subject, batch, rng)
        predicted[subject.name] = Row(prediction, subject.traits)
        if save is not None:
          rows_of = self.fetch((prediction, batch['valid']))
          save.prediction(subject.name, *rows_of, maps=subject.label_maps)
          for kind in set(save.kinds) & set(subject.own):
            outputs = self._own(subject.own[kind])(subject.state, batch)
            save.own(subject.name, kind, *self.fetch((outputs, batch['valid'])))
      yield Predicted(batch, predicted, ids, groups, keep, self.fetch)

  def _details(self, first: str, name: str, traits: Traits) -> tuple[Source, ...]:
    """What the labels hold, once; and what figures show."""
    made: list[Source] = []
    if name == first:
      made.append(Votes(self.info.num_classes, self.plan.ignore))
    if not self._detail:
      return tuple(made)
    if main := self.plan.main:
      whole = not traits.draws or traits.single or bool(self.plan.flips)
      made.append(Distances(main, self.plan.samples, whole))
    top = self.info.num_classes > 2
    if traits.confidence:
      made += [Diagram(own, top, self.plan.ignore) for own in (False, True)]
    return (*made, FlipDetails(self.plan.flips)) if self.plan.flips else tuple(made)

  def predict(self, subject: Subject, batch: Any, rng: jax.Array) -> Prediction:
    """plan.samples draws for each example of a placed batch, split over the mesh like it."""
    return self.program(subject)(subject.state, batch, rng)

  @property
  def ignored(self) -> int | None:
    """See `ignored_class`."""
    return ignored_class(self.plan.ignore, self.info.num_classes)

  def program(self, subject: Subject) -> Any:
    """What `predict` calls, jitted: program(state, batch, rng) -> Prediction."""
    f = subject.predict
    if f not in self._compiled:
      run: Any = lambda state, batch, rng: f(state, batch, rng, self.plan.samples)
      if not subject.summarised:
        run = functools.partial(
          predict.predict, f, self.plan.samples, self.plan.chunk, self.ignored
        )
      self._compiled[f] = jax.jit(run, out_shardings=sharding.split(self.mesh))
    return self._compiled[f]

  def shapes(self, subject: Subject, batch: Any, rng: jax.Array) -> None:
    """What `predict` and the scores do with a batch, by shapes alone; raises what they raise."""
    run = lambda state, batch: self.predict(dataclasses.replace(subject, state=state), batch, rng)
    sources = engine.sources_of(self.plan.metrics, subject.traits)
    score = lambda prediction, batch: [s.state(Outputs(prediction), batch) for s in sources]
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
