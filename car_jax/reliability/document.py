"""A finished study as plain data, and its files.

study.json, study.csv, study.md, objects.csv (where sets are by object), report.html.
"""

import dataclasses
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import folders
from car_jax.evaluate import census, order, report, tables
from car_jax.evaluate.cell import Estimate
from car_jax.metrics import (
  border_calibration,
  confusion_matrix,
  of_borders,
  of_maps,
  ranking,
  rejection,
)
from car_jax.metrics.calibration import reliability
from car_jax.metrics.of_pixels import OBJECT_NAMES
from car_jax.published import scores
from car_jax.reliability import correlation, failing, objects, ranks, survival
from car_jax.reliability.count import census_of
from car_jax.reliability.plan import Plan
from car_jax.reliability.study import PLAIN, Cell, Study, absent
from car_jax.reliability.study_options import ImageSet
from car_jax.reliability.view import Metric
from car_jax.report import study as pages

PAGE = 'report.html'
POINTS = 101  # of a curve on the page
NOT_HELD_OUT = (
  'Calibrators were fitted to {0}, and thresholds of guarantees chosen on it: what they give there '
  'is not of other images.'
)
IMAGE_SCORES = ('max_prob', 'entropy')


def build(
  study: Study,
  cells: Sequence[Cell],
  worst: Sequence[Mapping[str, Any]],
  notes: Sequence[str] = (),
  **about: Any,
) -> dict:
  """The dict behind study.json; see docs/reliability.md for its keys. nan becomes null.

  notes: lines that come before the study's own.
  """
  plan = study.plan
  content = dict(
    title=plan.title,
    **about,
    versions=report.versions(),
    notes=[*notes, *_notes(study, cells)],
    classes=study.names,
    models=[
      dict(name=m, about=_about(study, m), published_miou=_published(plan, m)) for m in plan.models
    ],
    sets=[*_sets(study, cells)],
    calibrators=[
      dict(name=PLAIN, about="the model's own probabilities"),
      *_calibrators(study, cells),
    ],
    remarks=[*_remarks(study, cells), *failing.remarks(cells)],
    metrics=[m._asdict() for m in _scored(cells)],
    cells=[_cell(plan, c) for c in cells],
    curves=[_curves(c) for c in cells if c.confident],
    failing=[*failing.of_study(cells)],
    fits=[*_fits(study)],
    objects=[*_objects(study, cells)],
    resamples=plan.config.resamples,
    ranks=ranks.of_study(plan, cells),
    rankings=[*_rankings(plan, cells)],
    seeds=[*_seeds(plan, cells)],
    correlations=correlation.of_study(plan, cells),
    image_ood=[*_image_ood(study, cells)],
    worst=list(worst),
    **survival.of_study(plan, cells),
  )
  return tables.plain(content)


def _scored(cells: Sequence[Cell]) -> list[Any]:
  """Every score that the study has: of cells, of correlations, of objects, of whole images."""
  named = {m.name: Metric.of(m.name, m.about) for m in cells[0].metrics.values()}
  more = (*OBJECT_NAMES, 'image_auroc')
  return [*(named | {m: Metric.of(m) for m in more}).values()]


def write(out: pathlib.Path, content: dict, pictures: Mapping[str, bytes]) -> pathlib.Path:
  """Writes the files, each whole or not at all -> the page."""
  texts = {
    'study.json': json.dumps(content, indent=1, allow_nan=False) + '\n',
    'study.csv': pages.to_csv(content),
    'study.md': pages.markdown(content),
    **({'objects.csv': objects.csv(content['objects'])} if content['objects'] else {}),
    PAGE: pages.page(content, dict(pictures)),
  }
  folders.write(out, texts)
  return out / PAGE


def _about(study: Study, model: str) -> str:
  published = _published(study.plan, model)
  texts = (study.plan.models[model].about, study.segmenter(model).about)
  score = f'mIoU published on Cityscapes validation: {published:g} %' if published else ''
  return '; '.join(filter(None, (*texts, score)))


def _published(plan: Plan, model: str) -> float | None:
  """The published mIoU in %."""
  published = plan.models[model].published
  known = scores(published.scores) if published else ()
  return next((round(100 * s.value, 4) for s in known if s.score == 'miou'), None)


def _notes(study: Study, cells: Sequence[Cell]) -> list[str]:
  how, config = study.plan.how, study.plan.config
  seen = f'{how.sampled:,} random pixels' if how.sampled else 'All pixels'
  whole = how.sampled and any(m.partition('[')[0] in of_maps.OPTIONS for m in study.plan.measures)
  maps = ', all of them for components and borders' if whole else ''
  counted = 'ranking measures come from fine histograms'
  if config.exact:
    counted = 'every score was sorted, but for those of pools and those within images or classes'
  plain = dict.fromkeys(c.model for c in cells if not c.confident)
  absent, on = study.plan.absent, study.plan.calibrate_on
  return [
    *([f'Left out, since their runs are not there: {", ".join(absent)}.'] if absent else []),
    *([NOT_HELD_OUT.format(on.name)] if on and on.name in study.plan.sets else []),
    f'{seen} of each image were scored{maps}; {counted}.',
    f'Intervals: 95 %, bootstrap over images or scenes, {config.resamples} resamples.',
    *([order.SEEDS] if len(study.plan.models) > 1 else []),
    *(
      f'{model} gives classes without a confidence: calibration, known errors and unknown objects '
      'are not available.'
      for model in plain
    ),
  ]


def _sets(study: Study, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  first = {c.set: c for c in reversed(cells)}
  plan = study.plan
  for name in (*plan.sets, *plan.pools):
    image_set, seen = plan.sets.get(name) or ImageSet(condition=name), first[name]
    about = image_set.about or ' + '.join(plan.pools.get(name, ())) or _data_words(image_set)
    yield dict(
      name=name,
      about=about,
      role=_role(plan, name),
      pool=name in plan.pools,
      condition=image_set.condition,
      shift=image_set.shift,
      images=len(seen.counts.ids),
      pixels=int(seen.pixels['pixels'].sum()),
    )


def _remarks(study: Study, cells: Sequence[Cell]) -> list[str]:
  """What is unusual in the labels of each set, see evaluate/census.py."""
  first = {c.set: c for c in reversed(cells)}
  of = lambda c: census.remark(census_of(c.counts), study.names, absent=tuple(absent(c.metrics)))
  return census.lines({name: of(first[name]) for name in study.plan.sets})


def _role(plan: Plan, name: str) -> str:
  """A pool is in-domain where all its sets are."""
  roles = {plan.sets[s].role for s in plan.pools.get(name, (name,))}
  return 'in-domain' if roles == {'in-domain'} else 'shifted'


def _data_words(image_set: ImageSet) -> str:
  data = image_set.data
  parts = [data.get('name'), image_set.split, data.get('corruption'), image_set.labels]
  return ', '.join(filter(None, parts))


def _calibrators(study: Study, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  used = {c.calibrator for c in cells}
  for name, kind in study.plan.calibrators.items():
    if name in used:
      yield dict(
        name=name, about=CALIBRATORS.get(kind.partition(':')[0].rstrip('0123456789'), kind)
      )


CALIBRATORS = {
  'temperature': 'one temperature for all pixels, least NLL',
  'ece_grid': 'one temperature for all pixels, least ECE on a grid (RELIS)',
  'per_class': 'a temperature for each predicted class, least NLL',
  'clusters': 'a temperature for each cluster of image features (RELIS)',
  'selective': 'one temperature for pixels judged wrong, another for the rest',
}


def _cell(plan: Plan, c: Cell) -> dict[str, Any]:
  kw = dict(resamples=plan.config.resamples, seed=plan.config.seed, exact=c.exact)
  estimates = c.counts.estimates([c.metrics[name] for name in plan.measures], **kw)
  iou = confusion_matrix.iou(c.totals.confusion)
  return c.place | dict(
    values={k: _estimate(v) for k, v in estimates.items() if not math.isnan(v.value)},
    iou=np.where(np.isin(np.arange(len(iou)), [*absent(c.metrics)]), np.nan, iou),
    scenes=_scenes(plan, c),
  )


def _scenes(plan: Plan, c: Cell) -> dict[str, dict[str, float]]:
  """Accuracy and ECE of every group of images, where there is more than one image in some."""
  groups = np.array(c.counts.groups)
  if len({*groups}) in (1, len(groups)):
    return {}
  shown = [c.metrics[m] for m in plan.measures if m in ('miou', 'pixel_accuracy', 'ece', 'nll')]
  shown = [m for m in shown if c.counts.has(m)]
  of = lambda m, group: m.compute(c.counts.total(m.source, groups == group))
  return {g: {m.name: of(m, g) for m in shown} for g in sorted({*groups})}


def _estimate(e: Estimate) -> dict[str, float]:
  return dict(value=e.value, low=e.low, high=e.high, bound=e.bound)


def _curves(c: Cell) -> dict[str, Any]:
  totals = c.totals
  table = reliability(totals.bins())
  wrong, right = totals.errors('max_prob')
  rejected, left = rejection.rejection_curve(wrong, right)
  x = np.linspace(0, 1, POINTS)[:-1]
  kept = 1 - x
  return c.place | dict(
    reliability=dict(confidence=table.confidence, frequency=table.frequency, pixels=table.pixels),
    rejection=dict(
      rejected=x,
      risk=np.interp(x, rejected, left) / kept,
      best=np.maximum(left[0] - x, 0) / kept,
    ),
    roc=dict(
      misclassification=_roc(wrong[::-1], right[::-1]),
      unknown=_roc(*totals.unknown('max_prob')),
    ),
    near=_near_borders(c),
  )


def _near_borders(c: Cell) -> dict[str, Any] | None:
  """Calibration by distance to a border, where the study has such a score."""
  bands = next((m.bands for m in c.metrics.values() if isinstance(m, of_borders.NearBorders)), None)
  if bands is None:
    return None
  scores = border_calibration.band_scores(c.counts.total(bands))
  names = [of_borders.band_name(*ends) for ends in itertools.pairwise(of_borders.ENDS)]
  keys = ('pixels', 'accuracy', 'confidence', 'ece')
  return dict(bands=names) | {k: v for k, v in vars(scores).items() if k in keys}


def _roc(positives: np.ndarray, negatives: np.ndarray) -> dict[str, Any] | None:
  if not positives.sum() or not negatives.sum():
    return None
  fpr, tpr = ranking.roc(positives, negatives)
  x = np.linspace(0, 1, POINTS) ** 2  # denser where the curve is steep
  return dict(fpr=x, tpr=np.interp(x, fpr, tpr))


def _fits(study: Study) -> Iterable[dict[str, Any]]:
  for model in study.plan.models:
    for name, fit in study.fits(model).items():
      a = fit.about
      table = np.atleast_1d(np.asarray(a.get('temperatures') or [], float)).reshape(-1)
      keys = ('nll_before', 'nll_after', 'ece_before', 'ece_after', 'warnings')
      scores = {k: a.get(k) for k in keys} | {'warnings': a.get('warnings') or []}
      on = _data_words(study.plan.calibrate_on or ImageSet())
      yield dict(model=model, calibrator=name, set=on, temperatures=table) | scores


def image_confidence(pooled: Mapping[str, np.ndarray], score: str) -> np.ndarray:
  """[I] mean confidence of each image: largest probability, or minus the entropy."""
  pixels = np.maximum(pooled['pixels'], 1)
  return pooled['image'][:, 0] / pixels if score == 'max_prob' else -pooled['image'][:, 1] / pixels


def _plain(plan: Plan, cells: Sequence[Cell]) -> Iterator[tuple[str, dict[str, Any], Any]]:
  """Of each set and pool, before recalibration: its name, counts of all models, and scores."""
  for name in (*plan.sets, *plan.pools):
    here = {c.model: c for c in cells if c.set == name and c.calibrator == PLAIN}
    yield name, {m: c.counts for m, c in here.items()}, next(iter(here.values())).metrics


def _rankings(plan: Plan, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  """The order of models by accuracy and by calibration error on each set, and how sure it is."""
  how = dict(resamples=plan.config.resamples, seed=plan.config.seed)
  chosen = [m for m in ('miou', 'pixel_accuracy', 'ece') if m in plan.measures]
  for name, counts, metrics in _plain(plan, cells):
    for m in chosen:
      if ranked := order.ranking(counts, metrics[m], **how):
        yield dict(set=name, metric=m) | dataclasses.asdict(ranked)


def _seeds(plan: Plan, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  """Each score of models that were trained several times, before recalibration."""
  for name, counts, metrics in _plain(plan, cells):
    for m in plan.measures:
      for s in order.over_seeds(counts, plan.seeds, metrics[m]):
        about = dict(set=name, metric=m, model=s.name)
        yield about | dict(values=s.values, mean=s.mean, deviation=s.deviation)


def _objects(study: Study, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  """Of the sets, and of the pools all of whose sets, are by object."""
  plan, config = study.plan, study.plan.config
  first = study.segmenter(next(iter(plan.models)))
  for c in cells:
    parts = [plan.sets[s] for s in plan.pools.get(c.set, (c.set,))]
    if all(first.images(s).by_object for s in parts) and c.confident:
      yield from objects.of_cell(c, resamples=config.resamples, seed=config.seed)


def _image_ood(study: Study, cells: Sequence[Cell]) -> Iterable[dict[str, Any]]:
  """Every other set against the in-domain one, by the mean confidence of whole images."""
  plan = study.plan
  known = next((name for name in plan.sets if _role(plan, name) == 'in-domain'), None)
  at = {(c.model, c.set, c.calibrator): c for c in cells}
  for model, name, calibrator in at:
    if known is None or _role(plan, name) == 'in-domain':
      continue
    if not at[model, name, calibrator].confident:
      continue
    others = [at[model, s, calibrator] for s in plan.pools.get(name, (name,)) if s != known]
    for score in IMAGE_SCORES:
      ours, *rest = (
        image_confidence(one.pixels, score) for one in (at[model, known, calibrator], *others)
      )
      pair = ours, np.concatenate(rest)
      yield dict(
        model=model, calibrator=calibrator, known=known, other=name, score=score
      ) | ranking.image_level(*pair)


def shifted_most(study: Study, cells: Sequence[Cell]) -> str:
  """Of one model's cells: the set of the strongest shift; among equals the one of its lowest
  accuracy. Empty where no set is shifted."""
  sets = [s for s in study.plan.sets if _role(study.plan, s) == 'shifted']
  plain = [c for c in cells if c.calibrator == PLAIN and c.set in sets]
  accuracy = lambda p: confusion_matrix.pixel_accuracy(p.confusion)

  def rank(c: Cell) -> tuple[float, float]:
    shift = study.plan.sets[c.set].shift
    return (-1 if shift is None else shift), -accuracy(c.totals)

  return max(plain, key=rank).set if plain else ''
