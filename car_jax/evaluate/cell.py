"""The sums of one subject on one set: added up, kept of each image, saved, merged, finished.

Letters: I images, G groups of images, R resamples.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import arrays as array_files
from car_jax import folders
from car_jax.errors import UserError, reading
from car_jax.metrics import bootstrap
from car_jax.metrics.base import Metric, PerImage, Source, Sums, Traits

FORMAT = 4  # of files
SHIFT = 0.05  # between totals and what is kept of images, beyond which the latter say nothing
OF_MAPS = 2  # bytes of a number at most: maps for the host, which are not widened
NAN = float('nan')


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A score with its 95 % interval over images, and the largest error that its sums leave.

  images were used, skipped ones have no such score.
  """

  value: float
  low: float
  high: float
  bound: float = 0.0
  images: int = 0
  skipped: int = 0


class Cell:
  """Add the sums of batches, then ask for scores.

  rows: by source, arrays [I, ..]; whole: by source, totals of what is not kept of each image.
  """

  def __init__(self, traits: Traits | None = None):
    self.traits = traits or Traits()
    self.ids: list[str] = []
    self.groups: list[str] = []
    self.whole: dict[str, Sums] = {}
    self._parts: list[dict[str, Sums]] = []
    self._drawn: dict[tuple[Any, ...], np.ndarray] = {}  # see `draws`
    self.sizes: list[int] = []  # images of each batch

  def add(self, sources: Sequence[Source], states: Sequence[Any], ids: Any, groups: Any) -> None:
    """Host arrays [B, ..] of one batch, a state for each source. Raises UserError."""
    rows = {}
    for source, state in zip(sources, states, strict=True):
      if state is None:
        continue
      wide = {
        k: v if np.asarray(v).dtype.itemsize <= OF_MAPS else _widened(v) for k, v in state.items()
      }
      if (broken := source.broken(wide)) is not None and broken.any():
        name = np.asarray(ids)[broken][0]
        raise UserError(
          f'image {name}: its logits are not finite\n  the model or its file is broken'
        )
      kept, whole = source.kept(wide)
      rows[source.source_name] = {k: _widened(v) for k, v in kept.items()}
      if whole and source.source_name in self.whole:
        whole = source.added(self.whole[source.source_name], whole)
      if whole:
        self.whole[source.source_name] = whole
    self._parts.append(rows)
    self._drawn.clear()
    self.sizes.append(len(ids))
    self.ids += map(str, ids)
    self.groups += map(str, groups)

  @property
  def rows(self) -> dict[str, Sums]:
    if len(self._parts) > 1:
      self._parts = [_joined(self._parts)]
    return self._parts[0] if self._parts else {}

  def total(self, source: Source, rows: np.ndarray | None = None) -> Any:
    """What `Metric.compute` gets: of all images, or of some [I] (bool or indices)."""
    every, whole = self.rows[source.source_name], {}
    if rows is None:
      whole = self.whole.get(source.source_name, {})
    else:
      every = {k: v[rows] for k, v in every.items()}
    if source.of_rows:
      return source.total(_counted(every), whole)
    return source.total({k: v.sum(0) for k, v in every.items()}, whole)

  def has(self, metric: Metric) -> bool:
    return not metric.left_out(self.traits) and metric.source.source_name in self.rows

  def value(self, metric: Metric) -> float:
    """The score without its interval, nan where there is none."""
    return float(metric.compute(self.total(metric.source))) if self.has(metric) else NAN

  def values(self, metric: Metric) -> np.ndarray | None:
    """[I] float64 of a score per image; None for a pooled one, or where there is none."""
    if not (isinstance(metric, PerImage) and self.has(metric)):
      return None
    return metric.values(self.rows[metric.source_name])

  @property
  def group(self) -> np.ndarray:
    """[I]: a number for each image's group; without groups those of one id are one.

    By name, so that draws do not depend on the order of images.
    """
    names = self.groups if any(self.groups) else self.ids
    return np.unique(names, return_inverse=True)[1].reshape(-1)

  def estimates(
    self,
    metrics: Sequence[Metric],
    *,
    resamples: int,
    seed: int = 0,
    counted: np.ndarray | None = None,
    exact: Mapping[str, float] | None = None,
  ) -> dict[str, Estimate]:
    """Every score over all images, by name; whole groups are drawn again where groups repeat.

    counted [I] (bool): images with a pixel that counts, the others are skipped by pooled scores.
    exact: by name, values that are known without the error of histograms. Intervals come from what
    is kept of images, and are shifted by what that changes; where it is more than SHIFT they are
    nan. So are those of a single image or group, or of a score that a single one decides.
    """
    out, pooled = {}, []
    for m in metrics:
      if not self.has(m):
        out[m.name] = Estimate(NAN, NAN, NAN, NAN, 0, len(self.ids))
      elif (values := self.values(m)) is not None:
        out[m.name] = _of_images(values, self.group, resamples, seed)
      else:
        pooled.append(m)
    part = np.arange(len(self.ids)) if counted is None else np.flatnonzero(counted)
    return out | self._pooled(pooled, part, resamples, seed, exact or {})

  def _pooled(
    self, metrics: Sequence[Metric], part: np.ndarray, resamples: int, seed: int, exact: Any
  ) -> dict[str, Estimate]:
    draws = self.draws(metrics, resamples=resamples, seed=seed, part=part)
    several = {m.name: self._of_several(m, draws[m.name], part) for m in metrics}
    return {m.name: self._estimate(m, several[m.name], part, exact.get(m.name)) for m in metrics}

  def draws(
    self,
    metrics: Sequence[Metric],
    *,
    resamples: int,
    seed: int | Sequence[int],
    part: np.ndarray | None = None,
  ) -> dict[str, np.ndarray]:
    """Name -> each score over resamples [R] of groups of images, as many groups as there are.

    Equal groups and seeds give equal draws, so that subjects see the same images. nan of a single
    group, and where there is no such score.
    """
    part = np.arange(len(self.ids)) if part is None else part
    how = resamples, tuple(np.ravel(seed)), part.tobytes()
    # A page asks for a score's interval, its differences and its order: all are of the same draws.
    if new := [m for m in metrics if (m, *how) not in self._drawn]:
      made = self._draw(new, resamples, seed, part)
      self._drawn |= {(m, *how): values for m, values in made.items()}
    return {m.name: self._drawn[m, *how] for m in metrics}

  def _draw(
    self, metrics: Sequence[Metric], resamples: int, seed: int | Sequence[int], part: np.ndarray
  ) -> dict[Metric, np.ndarray]:
    group = np.unique(self.group[part], return_inverse=True)[1].reshape(-1)
    out: dict[Metric, list[float]] = {m: [] for m in metrics}
    sources = {m.source.source_name: m.source for m in metrics}
    flat = {name: self._flat(source, part, group) for name, source in sources.items()}
    for times in _drawn(group, resamples, seed):
      totals = {name: _totals(source, flat[name], times, group) for name, source in sources.items()}
      for m in metrics:
        of = totals[m.source.source_name]
        out[m] += [*m.compute(of)] if m.source.of_rows else map(m.compute, of)
    return {m: np.array(v) if v else np.full(resamples, NAN) for m, v in out.items()}

  def _flat(self, source: Source, part: np.ndarray, group: np.ndarray) -> Sums:
    """Sums over the groups of some images [G, ..]; what is kept of the images where scores are of
    rows."""
    rows = {k: v[part] for k, v in self.rows[source.source_name].items()}
    return rows if source.of_rows else {k: _by_group(v, group) for k, v in rows.items()}

  def _estimate(
    self, m: Metric, draws: np.ndarray, part: np.ndarray, known: float | None
  ) -> Estimate:
    total = self.total(m.source)
    value = float(m.compute(total)) if known is None else known
    if np.isnan(value):
      return Estimate(NAN, NAN, NAN, NAN, 0, len(self.ids))
    fine = m.source.source_name in self.whole
    shift = value - m.compute(self.total(m.source, part)) if fine or known is not None else 0.0
    ends = _interval(draws, shift)
    bound = m.bound(total) if known is None else 0.0
    images = len(part) - m.skipped(self.total(m.source, part))
    return Estimate(value, *ends, bound, images, len(self.ids) - images)

  def _of_several(self, m: Metric, values: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Defined values of resamples; none where they do not differ and one group alone has any."""
    known = values[~np.isnan(values)]
    if len(known) and not np.ptp(known):
      group = self.group[part]
      each = (m.compute(self.total(m.source, part[group == g])) for g in np.unique(group))
      return known if len([*itertools.islice((v for v in each if v == v), 2)]) == 2 else known[:0]
    return known

  def save(self, path: pathlib.Path, about: Any) -> None:
    """One .npz with `about` (JSON) in it; it appears under its name when it is whole."""
    arrays: dict[str, Any] = {}
    for kind, of in (('rows', self.rows), ('whole', self.whole)):
      arrays |= {f'{kind}/{name}/{k}': v for name, sums in of.items() for k, v in sums.items()}
    names = dict(ids=self.ids, groups=self.groups, traits=dataclasses.asdict(self.traits))
    names |= dict(arrays=[*arrays])
    head = json.dumps(names | dict(about=about, format=FORMAT))
    with folders.whole(path) as part, part.open('wb') as file:
      np.savez_compressed(file, head=np.array(head), **arrays)


def load(path: pathlib.Path) -> tuple[Cell, Any]:
  """What `Cell.save` wrote -> (cell, about); of another version's file none, and about {}.

  Raises UserError for a damaged file.
  """
  again = 'delete it: it is made again'
  arrays = array_files.read(path, again)
  with reading(path, 'counts of a study', again):
    if 'head' not in arrays:
      return Cell(), {}
    head = json.loads(str(arrays.pop('head')))
    if head.get('format') != FORMAT:
      return Cell(), {}
    if strange := {*arrays} ^ {*head['arrays']}:
      raise ValueError(f'{min(strange)} is unknown or missing')
    cell = Cell(Traits(**head['traits']))
    cell.ids, cell.groups = head['ids'], head['groups']
    parts: dict[str, dict[str, Sums]] = {'rows': {}, 'whole': {}}
    for key, value in arrays.items():
      kind, rest = key.split('/', 1)
      name, _, k = rest.rpartition('/')
      parts[kind].setdefault(name, {})[k] = value
    cell.whole, cell._parts = parts['whole'], [parts['rows']]
    _check(cell)
    return cell, dict(head['about'])


def _check(cell: Cell) -> None:
  """Raises ValueError for sums that no images have, and for rows that are not those of the ids."""
  arrays = [(n, k, v) for n, of in cell.rows.items() for k, v in of.items()]
  rows = {len(cell.ids), len(cell.groups), *(len(v) for *_, v in arrays)}
  if len(rows) > 1 or not arrays:
    raise ValueError(f'rows of {sorted(rows)} images')
  arrays += [(n, k, v) for n, of in cell.whole.items() for k, v in of.items()]
  for name, key, array in arrays:
    if array.dtype.kind not in 'iuf' or not np.isfinite(array).all():
      raise ValueError(f'{name}/{key} holds {array.dtype} numbers that count nothing')
    if array.dtype.kind != 'f' and array.min(initial=0) < 0:
      raise ValueError(f'{name}/{key} holds {array.min()}')


def merged(cells: Sequence[Cell], sources: Sequence[Source]) -> Cell:
  """Several sets as one. Raises ValueError for predictions of different kinds."""
  out = Cell(cells[0].traits)
  for cell in cells:
    if cell.traits != out.traits:
      raise ValueError(f'kinds of predictions differ: {cell.traits} and {out.traits}')
    out.ids += cell.ids
    out.groups += cell.groups
    out._parts.append(cell.rows)
    for source in sources:
      name = source.source_name
      if name in cell.whole:
        known = out.whole.get(name)
        out.whole[name] = (
          cell.whole[name] if known is None else source.added(known, cell.whole[name])
        )
  return out


def difference(
  one: Cell,
  other: Cell,
  metric: Metric,
  *,
  resamples: int,
  seed: int = 0,
  counted: np.ndarray | None = None,
) -> Estimate:
  """one - other on the same images, which is surer than two intervals: both see the same draws."""
  a, b = one.values(metric), other.values(metric)
  if a is not None and b is not None:
    return _of_images(a - b, one.group, resamples, seed)
  value = one.value(metric) - other.value(metric)
  part = np.arange(len(one.ids)) if counted is None else np.flatnonzero(counted)
  source = metric.source
  kw: dict[str, Any] = dict(part=part, resamples=resamples, seed=seed)
  left, right = (c.draws([metric], **kw)[metric.name] for c in (one, other))
  draws = left - right
  kept = [c.total(source, part) for c in (one, other)]
  shift = (
    value - (metric.compute(kept[0]) - metric.compute(kept[1]))
    if source.source_name in one.whole
    else 0.0
  )
  images = len(part), len(one.ids) - len(part)
  return Estimate(value, *_interval(draws, shift), 0.0, *images)


def _interval(draws: np.ndarray, shift: float) -> tuple[float, float]:
  """95 % of resamples, shifted by what their coarser sums miss; nan where that is too much."""
  if not np.isfinite(draws).any() or not abs(shift) <= SHIFT:
    return NAN, NAN
  low, high = np.nanpercentile(draws, [2.5, 97.5])
  return float(low + shift), float(high + shift)


def _of_images(values: np.ndarray, group: np.ndarray, resamples: int, seed: int) -> Estimate:
  i = bootstrap.interval(values, groups=group, resamples=resamples, seed=seed)
  return Estimate(i.mean, i.low, i.high, 0.0, i.images, i.skipped)


def _widened(x: Any) -> np.ndarray:
  x = np.asarray(x)
  return x.astype(np.int64 if x.dtype.kind in 'iub' else np.float64)


def _joined(parts: Sequence[Mapping[str, Sums]]) -> dict[str, Sums]:
  join = lambda name, k: np.concatenate([p[name][k] for p in parts])
  return {name: {k: join(name, k) for k in of} for name, of in parts[0].items()}


def _counted(rows: Sums) -> Sums:
  """Rows of which each counts once, see `Source.of_rows`."""
  images = len(next(iter(rows.values())))
  return {**rows, 'times': np.ones(images)}


def _by_group(rows: np.ndarray, group: np.ndarray) -> np.ndarray:
  """[I, ..] -> [G, ..] float64"""
  sums = np.zeros((group.max(initial=-1) + 1, *rows.shape[1:]))
  np.add.at(sums, group, rows)
  return sums


def _drawn(group: np.ndarray, resamples: int, seed: int | Sequence[int]) -> Iterator[np.ndarray]:
  """How often each group is drawn [R, G], in blocks, which bound the memory; none of a single
  group."""
  units, rng = int(group.max(initial=-1)) + 1, np.random.default_rng(seed)
  for start in range(0, resamples if units > 1 else 0, 50):
    yield rng.multinomial(units, np.full(units, 1 / units), min(50, resamples - start))


def _totals(source: Source, flat: Sums, times: np.ndarray, group: np.ndarray) -> Any:
  """Of each draw [R, G] what `compute` gets; of all of them where it gets rows."""
  if source.of_rows:
    return source.total({**flat, 'times': times[:, group]}, {})
  sums = {k: _times(times, v) for k, v in flat.items()}
  return [source.total({k: v[r] for k, v in sums.items()}, {}) for r in range(len(times))]


def _times(times: np.ndarray, sums: np.ndarray) -> np.ndarray:
  """times [R, G] of sums [G, ..] -> [R, ..]"""
  flat = times.astype(np.float64) @ sums.reshape(len(sums), -1)
  return flat.reshape(len(times), *sums.shape[1:])
