"""From subjects to the report: results.json, per_image.csv, report.md, report.html, pictures/."""

import contextlib
import dataclasses
import json
import pathlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from car_jax import checkpoints, folders, paths, progress, sharding
from car_jax.evaluate import cost, gallery, save, tables
from car_jax.evaluate.gallery import Case, Choice
from car_jax.evaluate.harness import Batches, Evaluator
from car_jax.evaluate.predict import Subject
from car_jax.evaluate.results import Results
from car_jax.published import beside
from car_jax.report import evaluation, svg

RESULTS, FORM = 'results.json', 'evaluation results'


def versions() -> dict[str, str]:
  """Of packages, and what they ran on."""
  device = jax.devices()[0]
  return checkpoints.versions() | {
    'device': f'{jax.device_count()} x {device.device_kind}',
    'system': f'{platform.system()} {platform.machine()}',
  }


@dataclasses.dataclass(frozen=True)
class About:
  """What was evaluated, in words. models: a line for each checkpoint; command: to make it again."""

  title: str
  split: str
  models: tuple[str, ...] = ()
  command: str = ''
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  created: str = dataclasses.field(default_factory=lambda: time.strftime('%Y-%m-%d %H:%M'))
  versions: Mapping[str, str] = dataclasses.field(default_factory=versions)


def write(
  folder: str | pathlib.Path,
  results: Results,
  about: About,
  choice: Choice,
  cases: Mapping[int, Case],
) -> pathlib.Path:
  """Writes the report and returns the path of its page; only process 0 writes.

  An older report in `folder` is replaced, as a whole and at the end. Raises UserError where
  `folder` holds anything else.
  """
  folder = paths.of(folder)
  if jax.process_index() == 0:
    with folders.replaced(folder, RESULTS, FORM) as part:
      content, by_index = content_of(results, about, choice), dict(cases)
      shown = evaluation.Gallery(
        gallery.legend(results, max([len(c.readers) for c in by_index.values()], default=0)),
        gallery.cases(results, choice, by_index),
        gallery.diversity(results, choice, by_index),
      )
      strips = gallery.strips(results, results.subjects[0], choice, by_index)
      sections = evaluation.figures.by_section(content).values()
      drawn = {name: f for of in sections for name, f in of.items()}
      titles = {k: f.title for k, f in drawn.items()} | {k: t for k, (t, _) in strips.items()}
      texts = {
        RESULTS: json.dumps(content, indent=1, allow_nan=False) + '\n',
        'per_image.csv': tables.as_csv(results),
        'report.html': evaluation.page(content, shown),
        'report.md': evaluation.markdown(content, titles),
      }
      folders.write(part, texts)
      (part / 'pictures').mkdir()
      folders.write(part / 'pictures', {name: png for name, (_, png) in strips.items()})
      folders.write(part / 'pictures', {k: svg.standalone(f) for k, f in drawn.items()})
  return folder / 'report.html'


def content_of(results: Results, about: About, choice: Choice) -> dict[str, Any]:
  """Everything of results.json: what was evaluated, all numbers, and which cases are shown."""
  info = results.info
  data = dict(
    name=info.name,
    split=about.split,
    classes=[str(n) for n in info.class_names],
    images=len(results.ids),
    readers=info.readers,
    groups=None if results.groups is None else results.units[0],
    citation=info.citation,
    licence=info.licence,
  )
  cases = [dict(why=why, id=str(results.ids[i])) for why, i in choice.cases]
  words = {k: v for k, v in dataclasses.asdict(about).items() if k != 'split'}
  return tables.plain(words | dict(data=data) | tables.as_json(results) | dict(cases=cases))


def evaluate(
  evaluator: Evaluator,
  subjects: Sequence[Subject],
  stream: Callable[[], Batches],
  out: str | pathlib.Path,
  about: About,
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
      sharding.say(f'arrays in {saver.close(results, command=about.command)}')
  choice = gallery.choose(results, subjects[0].name)
  with _batches(stream) as batches:
    seen = gallery.collect(evaluator, subjects, batches, results, choice.indices, rng=rng)
  results.costs = {
    s.name: cost.of(s, seen.batch, evaluator.ignored, seen.seconds[s.name])
    for s in subjects
    if seen.batch and not s.summarised  # the files of anybody's predictions cost nothing
  }
  return results, write(out, results, about, choice, seen.cases)


def _batches(stream: Callable[[], Any]) -> Any:
  """A stream that is closed at the end, also of an error."""
  return contextlib.closing(stream())
