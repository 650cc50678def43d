"""Runs a study: every model on every set, through every calibrator; what is done is not done again.

OUT/calibrators/MODEL/NAME.npz   fitted calibrators, for car-jax eval and for other studies
OUT/guarantees/MODEL/NAME.npz    losses on calibrate_on, of which thresholds are chosen
OUT/cells/MODEL/SET.npz ..       counts of one model and set, one file for each calibrator
OUT/worst/MODEL/SET/..           pictures of the worst images
OUT/study.json, .csv, .md, report.html
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from car_jax import folders, progress, sharding
from car_jax.calibrate import base, files
from car_jax.errors import UserError, nearest
from car_jax.evaluate import cell
from car_jax.metrics.base import Metric, OfLabels
from car_jax.metrics.of_pixels import UNBOUNDED, OfPixels
from car_jax.metrics.pixel_counts import SORTED, Totals
from car_jax.reliability import count, guarantees, lazy_segmenter
from car_jax.reliability.guarantees import Chosen
from car_jax.reliability.lazy_segmenter import LazySegmenter
from car_jax.reliability.plan import PLAIN, Plan, is_file
from car_jax.reliability.segmenters import Segmenter, digest
from car_jax.reliability.study_options import ImageSet


@dataclasses.dataclass
class Cell:
  """One model on one set, or a pool of sets, through one calibrator.

  metrics: its scores by name. exact: values by name, without the error of histograms. thresholds:
  by guarantee, those that its sets of classes have.
  """

  model: str
  set: str
  calibrator: str
  counts: cell.Cell
  metrics: dict[str, Metric]
  exact: dict[str, float] = dataclasses.field(default_factory=dict)
  thresholds: Mapping[str, Chosen] = dataclasses.field(default_factory=dict)

  @property
  def place(self) -> dict[str, str]:
    return dict(model=self.model, set=self.set, calibrator=self.calibrator)

  @property
  def pixels(self) -> dict[str, np.ndarray]:
    """What single pixels sum up to, of each image [I, ..]; see metrics/pixel_counts.py."""
    return self.counts.rows[count.PIXELS.source_name]

  @property
  def totals(self) -> Totals:
    return self.counts.total(count.PIXELS)

  @property
  def confident(self) -> bool:
    """Whether its predictions are more than classes alone."""
    return self.counts.traits.confidence


@dataclasses.dataclass(frozen=True)
class Part:
  """What is counted through one calibrator: the file that keeps it, and what it depends on."""

  calibrator: Any
  path: pathlib.Path
  print: str

  def saved(self) -> tuple[cell.Cell, dict[str, Any]] | None:
    """The counts and what is known besides; None where they are not there, or of something else."""
    if not self.path.exists():
      return None
    counts, about = cell.load(self.path)
    return (counts, about) if about.get('print') == self.print else None


@dataclasses.dataclass
class Study:
  """A plan, the folder that it is carried out in, and what of it is there."""

  plan: Plan
  out: pathlib.Path
  mesh: Mesh
  say: Callable[[str], None] = lambda text: sharding.say(text, file=sys.stderr)

  def __post_init__(self) -> None:
    self._models: dict[str, LazySegmenter] = {}
    self._memory: dict[str, Segmenter] = {}
    self._fits: dict[str, dict[str, base.Fit]] = {}

  def segmenter(self, name: str) -> LazySegmenter:
    """A model, opened when it is first needed."""
    if name not in self._models:
      self._models[name] = LazySegmenter(self.plan.models[name], self.plan, self.mesh, self._memory)
    return self._models[name]

  @property
  def names(self) -> tuple[str, ...]:
    """Of the classes, the same for all models and sets."""
    first = next(iter(self.plan.sets.values()))
    return self.segmenter(next(iter(self.plan.models))).images(first).names

  def run(self) -> Iterator[list[Cell]]:
    """All cells of one model after another, from their files or computed now. Raises UserError."""
    self._check()
    if absent := self.plan.absent:
      self.say(f'{len(self.plan.models)} models are studied; not there: {", ".join(absent)}')
    for model in self.plan.models:
      fits = self.fits(model)
      for image_set in self.plan.sets.values():
        self._check_inputs(model, image_set, {k: f.calibrator for k, f in fits.items()})
      chosen = self.thresholds(model, fits)
      cells = [c for name in self.plan.sets for c in self._cells(model, name, fits, chosen)]
      yield cells + self._pooled(cells)

  def _check(self) -> None:
    """What can be known before anything is computed: models open, sets exist, classes agree,
    calibrators from files fit the models."""
    by_classes: dict[tuple[str, ...], str] = {}
    on = [self.plan.calibrate_on] if self.plan.calibrate_on else []
    sets = [*self.plan.sets.values()]
    for named in self.plan.models.values():
      lazy_segmenter.check_data(named, sets, self.plan.calibrate_on)
    for model in reversed(self.plan.models):  # the first stays in memory
      segmenter = self.segmenter(model)
      for image_set in [*sets, *on]:
        names = segmenter.images(image_set).names
        guarantees.kinds(self.plan.guarantees, names)
        by_classes.setdefault(names, f'{model} on {image_set.name}')
        self._metrics(segmenter, image_set)
      given = {k: f.calibrator for k, f in self._given(model, len(names)).items()}
      for image_set in sets:
        self._check_inputs(model, image_set, given)
    if len(by_classes) > 1:
      (a, first), (b, second), *_ = by_classes.items()
      raise UserError(f'classes differ: {first} has {len(a)}, {second} {len(b)}: {_odd(a, b)}')

  def _given(self, model: str, classes: int | None = None) -> dict[str, base.Fit]:
    """The model's calibrators from files that a user names."""
    place = lambda kind: kind.replace('{model}', folders.slug(model))
    kinds = {k: v for k, v in self.plan.calibrators.items() if is_file(v)}
    return {k: files.load(place(kind), classes=classes) for k, kind in kinds.items()}

  def _check_inputs(self, model: str, image_set: ImageSet, used: Mapping[str, Any]) -> None:
    """Raises UserError for a calibrator that needs what the model does not give."""
    wanted = {k: need for k, v in used.items() if (need := base.needs(v))}
    if not wanted:
      return
    segmenter = self.segmenter(model)
    there = {'image', 'features'} if segmenter.has_features else {'image'}
    if segmenter.has_features is None:
      there = segmenter.first(image_set)
    for name, need in wanted.items():
      if need not in there:
        raise UserError(
          f'calibrator {name!r} needs {base.NEEDED[need]}, and model {model!r} has none of '
          f'{image_set.name!r}\n  leave one of them out of the study'
        )

  def fits(self, model: str) -> dict[str, base.Fit]:
    """The model's calibrators by name, without those that cannot be fitted to it."""
    if model not in self._fits:
      out, wanted = self._given(model), {}
      for name, kind in self.plan.calibrators.items():
        if name in out:
          continue
        path, mark = self._calibrator(model, name), self._print(model, kind)
        fit = files.load(path, mend='delete it: it is fitted again') if path.exists() else None
        if fit and fit.about.get('print') == mark:
          out[name] = fit
        else:
          wanted[name] = kind
      out |= self._fitted(model, wanted) if wanted else {}
      self._fits[model] = {name: out[name] for name in self.plan.calibrators if name in out}
    return self._fits[model]

  def _fitted(self, model: str, wanted: Mapping[str, str]) -> dict[str, base.Fit]:
    image_set, how = self.plan.fitted_on, self.plan.how
    how = dataclasses.replace(how, sampled=self.plan.config.calibration_pixels)
    segmenter = self.segmenter(model)
    if segmenter.has_features is False:
      wanted = self._without_features(model, wanted)
    if not wanted:
      return {}
    features = any(_on_features(kind) for kind in wanted.values())
    meter = self._progress(f'{model}: calibrating', segmenter.images(image_set).size)
    sample = count.sample(segmenter.batches(image_set, features=features), how, progress=meter)
    if sample.features is None:
      wanted = self._without_features(model, wanted)
    out = {}
    for name, kind in wanted.items():
      fit = base.fit(kind, sample, seed=self.plan.config.seed)
      out[name] = base.Fit(fit.calibrator, fit.about | {'print': self._print(model, kind)})
      self._say_fit(model, name, fit)
      if jax.process_index() == 0:
        files.save(self._calibrator(model, name), out[name])
    sharding.barrier(f'calibrators {model}')
    return out

  def _without_features(self, model: str, wanted: Mapping[str, str]) -> dict[str, str]:
    if left_out := [name for name, kind in wanted.items() if _on_features(kind)]:
      self.say(f'warning: {model} has no features of images: without {", ".join(left_out)}')
    return {name: kind for name, kind in wanted.items() if name not in left_out}

  def _say_fit(self, model: str, name: str, fit: base.Fit) -> None:
    self.say(f'{model}, {name}: {fit.change}')
    for warning in fit.about.get('warnings') or ():
      self.say(f'warning: {model}, {name}: {warning}')

  def thresholds(self, model: str, fits: Mapping[str, base.Fit]) -> dict[str, dict[str, Chosen]]:
    """By calibrator and guarantee, chosen on calibrate_on."""
    if not self.plan.guarantees:
      return {}
    image_set, how, segmenter = self.plan.fitted_on, self.plan.how, self.segmenter(model)
    kinds = guarantees.kinds(self.plan.guarantees, segmenter.images(image_set).names)
    sources = guarantees.sources(kinds)
    file = lambda k: self._file('guarantees', model, k)
    mark = lambda v: self._mark(model, image_set, sources, v)
    parts = {k: Part(v, file(k), mark(v)) for k, v in used(fits).items()}

    def counting(batches: Any, missing: Mapping[str, Any], meter: Any) -> dict[str, Any]:
      found = count.losses(batches, sources, missing, how, progress=meter)
      return {k: (counts, {}) for k, counts in found.items()}

    done = self._done(f'{model}: choosing thresholds', model, image_set, parts, counting)
    chosen = {k: guarantees.choose(done[k][0], self.plan.guarantees, kinds) for k in parts}
    for line in guarantees.warnings(self.plan.guarantees, chosen.values()):
      self.say(f'warning: {line}')
    return chosen

  def _cells(
    self,
    model: str,
    name: str,
    fits: Mapping[str, base.Fit],
    chosen: Mapping[str, Mapping[str, Chosen]],
  ) -> Iterator[Cell]:
    """All calibrators on one model and set; those that are missing share one pass."""
    image_set, how = self.plan.sets[name], self.plan.how
    metrics = self._metrics(self.segmenter(model), image_set)
    of = {k: chosen.get(k, {}) for k in used(fits)}
    file = lambda k: self._file('cells', model, name, k)
    mark = lambda k, v: self._cell_print(model, image_set, v, of[k])
    parts = {k: Part(v, file(k), mark(k, v)) for k, v in used(fits).items()}
    every = [*metrics.values(), *(m for c in of[PLAIN].values() for m in (c.loss, c.size))]
    given = {k: {'thresholds': {n: c.threshold for n, c in v.items()}} for k, v in of.items()}

    def counting(batches: Any, missing: Mapping[str, Any], meter: Any) -> dict[str, Any]:
      found = count.cells(batches, every, missing, how, given=given, progress=meter)
      return {k: (counts, dict(exact=self._exact(counts, metrics))) for k, counts in found.items()}

    done = self._done(f'{model} on {name}', model, image_set, parts, counting)
    about = lambda k: (done[k][0], metrics, done[k][1]['exact'], of[k])
    return (Cell(model, name, k, *about(k)) for k in parts)

  def _done(
    self,
    title: str,
    model: str,
    image_set: ImageSet,
    parts: Mapping[str, Part],
    counting: Callable[..., dict[str, Any]],
  ) -> dict[str, tuple[cell.Cell, dict[str, Any]]]:
    """Of each part its counts and what is known besides, from its file; the missing from one pass.

    counting: batches, calibrators by name and progress -> the same of the missing parts.
    """
    done = {k: saved for k, part in parts.items() if (saved := part.saved())}
    missing = {k: part.calibrator for k, part in parts.items() if k not in done}
    if missing:
      segmenter = self.segmenter(model)
      features = any(base.needs(v) == 'features' for v in missing.values())
      meter = self._progress(title, segmenter.images(image_set).size)
      batches = segmenter.batches(image_set, features=features)
      for k, (counts, about) in counting(batches, missing, meter).items():
        if jax.process_index() == 0:
          counts.save(parts[k].path, about | dict(print=parts[k].print))
        done[k] = counts, about
      sharding.barrier(title)
    return done

  def _metrics(self, segmenter: LazySegmenter, image_set: ImageSet) -> dict[str, Metric]:
    """The study's scores on a set. Raises UserError for an absent class that it has not."""
    names = segmenter.images(image_set).names
    if unknown := [c for c in image_set.absent if c not in names]:
      raise UserError(
        f'set {image_set.name!r} has no class {unknown[0]!r}\n{nearest(unknown[0], names)}'
      )
    return {m.name: m for m in self.plan.metrics(names, image_set.absent)}

  def _exact(self, counts: cell.Cell, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Where all scores were sorted; what was sorted is then let go."""
    if not self.plan.config.exact:
      return {}
    kinds = [m for m in metrics.values() if isinstance(m, OfPixels) and counts.has(m)]
    values = {m.name: counts.value(m) for m in kinds if not m.name.startswith(UNBOUNDED)}
    whole = counts.whole[count.PIXELS.source_name]
    for key in SORTED:
      whole.pop(key)
    return values

  def _pooled(self, cells: list[Cell]) -> list[Cell]:
    """Cells of the plan's pools, merged from those of their sets."""
    out = []
    for pool, of in self.plan.pools.items():
      for k in dict.fromkeys(c.calibrator for c in cells):
        counts, metrics = merged([c for c in cells if c.calibrator == k and c.set in of])
        chosen = next(c.thresholds for c in cells if c.calibrator == k)
        out.append(Cell(cells[0].model, pool, k, counts, metrics, {}, chosen))
    return out

  def _file(self, kind: str, *names: str) -> pathlib.Path:
    return self.out.joinpath(kind, *map(folders.slug, names)).with_suffix('.npz')

  def _calibrator(self, model: str, name: str) -> pathlib.Path:
    return self._file('calibrators', model, name)

  def _print(self, model: str, kind: str) -> str:
    """What a calibrator depends on."""
    c, segmenter = self.plan.config, self.segmenter(model)
    on = segmenter.data_print(self.plan.fitted_on)
    classes = segmenter.images(self.plan.fitted_on).names
    return digest(segmenter.fingerprint, on, classes, kind, c.seed, c.calibration_pixels)

  def _cell_print(
    self,
    model: str,
    image_set: ImageSet,
    calibrator: Any,
    chosen: Mapping[str, Chosen] | None = None,
  ) -> str:
    classes = self.segmenter(model).images(image_set).names
    scores: list[Any] = [self.plan.config.exact]
    scores += self.plan.metrics(classes, image_set.absent)
    for c in (chosen or {}).values():
      scores += [c.loss, c.size, float(c.threshold)]
    return self._mark(model, image_set, scores, calibrator)

  def _mark(self, model: str, image_set: ImageSet, scores: Sequence[Any], calibrator: Any) -> str:
    """What counts depend on."""
    segmenter, how = self.segmenter(model), dataclasses.asdict(self.plan.how)
    fitted = None if calibrator is None else files.digest(calibrator)
    seen = segmenter.fingerprint, segmenter.data_print(image_set), segmenter.images(image_set).names
    return digest(seen, how, [*map(str, scores)], fitted)

  def _progress(self, what: str, total: int) -> Any:
    if jax.process_index():
      return None
    self.say(f'{what}: {total:,} images')
    return progress.line(total)


def used(fits: Mapping[str, base.Fit]) -> dict[str, Any]:
  """By name, what logits go through: nothing, then each calibrator."""
  return {PLAIN: None} | {k: f.calibrator for k, f in fits.items()}


def merged(cells: Sequence[Cell]) -> tuple[cell.Cell, dict[str, Metric]]:
  """Cells of one model as one, and its scores: a class is absent that all of them lack."""
  first = cells[0].metrics
  sources = {m.source.source_name: m.source for m in first.values()}
  sources.setdefault(count.PIXELS.source_name, count.PIXELS)
  everywhere = set.intersection(*(absent(c.metrics) for c in cells))
  metrics = {
    k: dataclasses.replace(m, absent=tuple(sorted(everywhere))) if isinstance(m, OfLabels) else m
    for k, m in first.items()
  }
  return cell.merged([c.counts for c in cells], [*sources.values()]), metrics


def absent(metrics: Mapping[str, Metric]) -> set[int]:
  """Classes that the labels of a set cannot have."""
  return {c for m in metrics.values() if isinstance(m, OfLabels) for c in m.absent}


def _on_features(kind: str) -> bool:
  return 'cluster' in kind


def _odd(a: tuple[str, ...], b: tuple[str, ...]) -> str:
  return ', '.join(sorted(set(a) ^ set(b))[:4]) or 'in their order'
