"""From subjects and batches to the readers' report, wherever they come from."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from car_jax import progress
from car_jax.evaluate import gallery, report, save
from car_jax.evaluate.harness import Batches, Evaluator
from car_jax.evaluate.predict import Subject
from car_jax.evaluate.results import Results
from car_jax.published import beside


def evaluate(
  evaluator: Evaluator,
  subjects: Sequence[Subject],
  stream: Callable[[], Batches],
  out: str | pathlib.Path,
  about: report.About,
  *,
  images: int,
  seed: int,
  saver: save.Saver | None = None,
  trainings: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Results, pathlib.Path]:
  """Scores subjects, predicts what the page shows once more, writes it -> (results, page).

  stream: the batches of `images` images, from the start whenever called. saver: gets all
  predictions. trainings: model -> its subjects, see Results.seeds. Raises UserError.
  """
  rng = jax.random.key(seed)
  meter = progress.line(images) if jax.process_index() == 0 else None
  with _batches(stream) as batches, saver or contextlib.nullcontext():
    results = evaluator(subjects, batches, rng=rng, progress=meter, save=saver)
    results.seeds = {k: [*v] for k, v in (trainings or {}).items()}
    names = [m.name for m in results.plan.metrics]
    known = about.config.get('published')
    results.published = beside(known, results.info.name, about.split, names)
    if saver is not None:
      print(f'arrays in {saver.close(results, command=about.command)}')
  choice = gallery.choose(results, subjects[0].name)
  with _batches(stream) as batches:
    cases = gallery.collect(evaluator, subjects, batches, results, choice.indices, rng=rng)
  return results, report.write(out, results, about, choice, cases)


def _batches(stream: Callable[[], Any]) -> Any:
  """A stream that is closed at the end, also of an error."""
  return contextlib.closing(stream())
