"""The evaluations that the training loop runs every so often: a few scores of the own predictor."""

import contextlib
import dataclasses
from collections.abc import Generator, Mapping
from typing import Any

import jax

from car_jax.data import compact, pipeline
from car_jax.errors import UserError
from car_jax.evaluate import gallery
from car_jax.evaluate.harness import Evaluator
from car_jax.evaluate.predict import Subject, subjects
from car_jax.methods.train_state import for_evaluation


class Validation:
  """One entry of config.evals: make it once, call it with each state -> {metric name: value}.

  spec: see evaluate/options.py; `split` must be named. The predictor is the method's first one. All
  calls draw with the same key, so two states are compared on the same draws.
  """

  def __init__(self, method: Any, dataset: Any, config: Any, spec: Mapping[str, Any], mesh: Any):
    spec = dict(spec)
    if not spec.get('split'):
      raise UserError(f'an entry of config.evals names no split: {spec}\n  add split="validation"')
    self._evaluator = Evaluator(spec, dataset.info, mesh=mesh)
    self.source, self._info = dataset.split(spec['split']), dataset.info
    self._data, self._rng = config.data, jax.random.key(config.seed)
    if not method.predictors():
      raise UserError('config.evals: this method predicts no segmentation; leave it empty')
    self._first = subjects(method, None)[0]

  @property
  def names(self) -> list[str]:
    """The keys of what a call returns."""
    return [m.name for m in self._evaluator.plan.metrics]

  def batches(self, source: Any) -> Generator[pipeline.Batch, None, None]:
    """This process's batches of all records of `source`, or of some of them."""
    return pipeline.eval_batches(
      source,
      self._info,
      self._data,
      host=jax.process_index(),
      hosts=jax.process_count(),
      devices=self._evaluator.mesh.size,
    )

  def _subject(self, state: Any) -> Subject:
    return dataclasses.replace(self._first, state=for_evaluation(state))

  def lowered(self, state: Any, batch: Any) -> Any:
    """The program that predicts a batch; arrays may be shapes that say where they are placed."""
    subject = self._subject(state)
    return self._evaluator.program(subject).lower(subject.state, batch, self._rng)

  def shapes(self, state: Any, batch: pipeline.Batch) -> None:
    """Predicts and scores a batch by shapes alone; raises what that raises.

    batch: this process's rows; all processes have as many.
    """
    rows = lambda v: (len(v) * jax.process_count(), *v.shape[1:])
    given = compact.numbers(batch)
    whole = {k: jax.ShapeDtypeStruct(rows(v), v.dtype) for k, v in given.items()}
    self._evaluator.shapes(self._subject(state), jax.eval_shape(compact.expand, whole), self._rng)

  def __call__(self, state: Any) -> dict[str, float]:
    with contextlib.closing(self.batches(self.source)) as batches:
      self._results = self._evaluator([self._subject(state)], batches, rng=self._rng)
    return self._results.scalars()

  def pictures(self, state: Any, count: int) -> dict[str, Any]:
    """Id -> picture of the first images of the last call with their readers and its samples."""
    indices, subject = range(min(count, len(self._results.ids))), self._subject(state)
    with contextlib.closing(self.batches(self.source)) as batches:
      seen = gallery.collect(
        self._evaluator, [subject], batches, self._results, indices, rng=self._rng
      )
    return {
      c.id: gallery.strip(c, self._first.name, self._info.palette) for c in seen.cases.values()
    }
