"""Runs a study: every model on every set, through every calibrator; what is done is not done again.

OUT/calibrators/MODEL/NAME.npz   fitted calibrators, for eval.py and for other studies
OUT/cells/MODEL/SET.npz ..       counts of one model and set, one file for each calibrator
OUT/worst/MODEL/SET/..           pictures of the worst images
OUT/study.json, .csv, .md, report.html
"""

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from car_jax import sharding
from car_jax.calibrate import base, files
from car_jax.errors import UserError, nearest
from car_jax.evaluate import folders, progress
from car_jax.reliability import count, foreign, tally
from car_jax.reliability.plan import Plan, is_file
from car_jax.reliability.segmenters import Checkpoint, Segmenter

PLAIN = 'none'


@dataclasses.dataclass
class Cell:
  """One model on one set through one calibrator; `exact` values by measure, where asked for."""

  model: str
  set: str
  calibrator: str
  tally: tally.Tally
  exact: dict[str, float]


@dataclasses.dataclass
class Study:
  """A plan, the folder that it is carried out in, and what of it is there."""

  plan: Plan
  out: pathlib.Path
  mesh: Mesh
  say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

  def __post_init__(self) -> None:
    self._open: dict[str, Segmenter] = {}

  def segmenter(self, name: str) -> Segmenter:
    """A model, opened when it is first needed."""
    if name not in self._open:
      self._open[name] = open_segmenter(self.plan.models[name], self.plan, self.mesh)
    return self._open[name]

  def run(self) -> list[Cell]:
    """All cells, from their files or computed now. Raises UserError."""
    self._check()
    cells: list[Cell] = []
    for model in self.plan.models:
      fits = self.fits(model)
      for name in self.plan.sets:
        cells += self._cells(model, name, fits)
      cells += self._pooled([c for c in cells if c.model == model])
    return cells

  def _check(self) -> None:
    """What can be known before anything is computed: models open, sets exist, classes agree."""
    found: dict[tuple[str, ...], str] = {}
    on = [self.plan.calibrate_on] if self.plan.calibrate_on else []
    for model in self.plan.models:
      for spec in [*self.plan.sets.values(), *on]:
        names, _ = self.segmenter(model).classes(spec)
        found.setdefault(names, f'{model} on {spec["name"]}')
    if len(found) > 1:
      (a, first), (b, second), *_ = found.items()
      raise UserError(f'classes differ: {first} has {len(a)}, {second} {len(b)}: {_odd(a, b)}')

  def fits(self, model: str) -> dict[str, base.Fit]:
    """The model's calibrators, by name."""
    out, wanted = {}, {}
    for name, kind in self.plan.calibrators.items():
      path = self._calibrator(model, name)
      if is_file(kind):
        out[name] = files.load(kind.replace('{model}', model))
      elif path.is_file() and (fit := files.load(path)).about.get('print') == self._print(
        model, kind
      ):
        out[name] = fit
      else:
        wanted[name] = kind
    out |= self._fitted(model, wanted) if wanted else {}
    return {name: out[name] for name in self.plan.calibrators}

  def _fitted(self, model: str, wanted: Mapping[str, str]) -> dict[str, base.Fit]:
    spec, how = self.plan.calibrate_on, self.plan.how
    how = dataclasses.replace(how, sampled=self.plan.config.calibration_pixels, exact=False)
    segmenter = self.segmenter(model)
    features = any('cluster' in kind for kind in wanted.values())
    told = self._progress(f'{model}: calibrating', segmenter.size(spec))
    sample = count.sample(segmenter.batches(spec, features=features), how, progress=told)
    out = {}
    for name, kind in wanted.items():
      fit = base.fit(kind, sample, seed=self.plan.config.seed)
      out[name] = base.Fit(fit.calibrator, fit.about | {'print': self._print(model, kind)})
      self._told(model, name, fit)
      if jax.process_index() == 0:
        files.save(self._calibrator(model, name), out[name])
    sharding.barrier(f'calibrators {model}')
    return out

  def _told(self, model: str, name: str, fit: base.Fit) -> None:
    a = fit.about
    self.say(
      f'{model}, {name}: NLL {a["nll_before"]:.4f} -> {a["nll_after"]:.4f}, '
      f'ECE {a["ece_before"]:.4f} -> {a["ece_after"]:.4f}'
    )
    for warning in a.get('warnings') or ():
      self.say(f'warning: {model}, {name}: {warning}')

  def _cells(self, model: str, name: str, fits: Mapping[str, base.Fit]) -> Iterator[Cell]:
    """All calibrators on one model and set; those that are missing share one pass."""
    spec, segmenter = self.plan.sets[name], self.segmenter(model)
    used: dict[str, Any] = {PLAIN: None} | {k: f.calibrator for k, f in fits.items()}
    prints = {k: self._cell_print(model, spec, fits.get(k)) for k in used}
    done = {k: found for k in used if (found := self._saved(model, name, k, prints[k]))}
    missing = {k: v for k, v in used.items() if k not in done}
    if missing:
      features = any('cluster' in f.about['kind'] for k, f in fits.items() if k in missing)
      told = self._progress(f'{model} on {name}', segmenter.size(spec))
      batches = segmenter.batches(spec, features=features)
      kw = dict(logit_scores=segmenter.logit_scores, progress=told)
      absent = self._absent(segmenter, spec)
      for k, found in count.tallies(batches, missing, self.plan.how, **kw).items():
        found.absent = absent
        values = self._exact(found)
        if jax.process_index() == 0:
          found.save(self._cell(model, name, k), dict(print=prints[k], exact=values))
        done[k] = found, values
      sharding.barrier(f'cell {model} {name}')
    return (Cell(model, name, k, *done[k]) for k in used)

  def _absent(self, segmenter: Segmenter, spec: Mapping[str, Any]) -> tuple[int, ...]:
    names = segmenter.classes(spec)[0]
    if unknown := [c for c in spec.get('absent', ()) if c not in names]:
      raise UserError(
        f'set {spec["name"]!r} has no class {unknown[0]!r}\n{nearest(unknown[0], names)}'
      )
    return tuple(names.index(c) for c in spec.get('absent', ()))

  def _exact(self, found: tally.Tally) -> dict[str, float]:
    if (values := found.exact) is None:
      return {}
    pooled = count.Exact(found.pooled(), *values)
    return {m.name: m.of(pooled) for m in self.plan.measures}

  def _pooled(self, cells: list[Cell]) -> list[Cell]:
    """Cells of the plan's pools, merged from those of their sets."""
    out = []
    for pool, of in self.plan.pools.items():
      for k in dict.fromkeys(c.calibrator for c in cells):
        parts = [c for c in cells if c.calibrator == k and c.set in of]
        out.append(Cell(parts[0].model, pool, k, tally.merged([c.tally for c in parts]), {}))
    return out

  def _saved(self, model: str, name: str, calibrator: str, wanted: str) -> Any:
    path = self._cell(model, name, calibrator)
    if not path.is_file():
      return None
    found, about = tally.load(path)
    return (found, about['exact']) if about['print'] == wanted else None

  def _cell(self, model: str, name: str, calibrator: str) -> pathlib.Path:
    folder = self.out / 'cells' / folders.slug(model) / folders.slug(name)
    return folder / f'{folders.slug(calibrator)}.npz'

  def _calibrator(self, model: str, name: str) -> pathlib.Path:
    return self.out / 'calibrators' / folders.slug(model) / f'{folders.slug(name)}.npz'

  def _print(self, model: str, kind: str) -> str:
    """What a calibrator depends on."""
    c, on = self.plan.config, self.plan.calibrate_on
    return digest(self.segmenter(model).fingerprint, on, kind, c.seed, c.calibration_pixels)

  def _cell_print(self, model: str, spec: Mapping[str, Any], fit: base.Fit | None) -> str:
    seen = {k: v for k, v in spec.items() if k in ('data', 'split', 'labels', 'absent')}
    how = dataclasses.asdict(self.plan.how)
    chosen = [m.name for m in self.plan.measures] if self.plan.how.exact else []
    return digest(self.segmenter(model).fingerprint, seen, how, chosen, fit and fit.about)

  def _progress(self, what: str, total: int) -> Any:
    if jax.process_index():
      return None
    self.say(f'{what}: {total:,} images')
    return progress.line(total)


def digest(*parts: Any) -> str:
  """A short text that changes when any of the parts, made of JSON's types, changes."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_segmenter(spec: Mapping[str, Any], plan: Plan, mesh: Mesh) -> Segmenter:
  """A run of ours, or else a folder of predictions. Raises UserError."""
  path = pathlib.Path(spec['path'])
  run = any(
    (path / part).exists() for part in ('checkpoints', 'config.json', '_CHECKPOINT_METADATA')
  )
  if run or path.name.isdigit():
    return Checkpoint(spec['name'], spec, mesh, plan.config.seed)
  if '{set}' not in spec['path'] and not path.is_dir():
    raise UserError(
      f'model {spec["name"]!r}: no run and no folder of predictions {path}\n'
      '  train it first, or leave it out of config.models'
    )
  c = plan.config
  return foreign.Folder(spec['name'], spec['path'], c.classes, c.palette)


def _odd(a: tuple[str, ...], b: tuple[str, ...]) -> str:
  return ', '.join(sorted(set(a) ^ set(b))[:4]) or 'in their order'
