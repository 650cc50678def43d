"""Counts of many images: added up, kept per image for intervals, saved and merged.

Letters as in metrics/onepass.py, and I images. Sums over images are int64 or float64 on the host.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from car_jax import arrays as array_files
from car_jax.errors import UserError, reading
from car_jax.evaluate import folders
from car_jax.evaluate.census import Census
from car_jax.metrics import onepass, ranking
from car_jax.metrics.onepass import BINS, COARSE, SCORES, UNKNOWN, Counts

# what is kept of each image
IMAGE_KEYS: tuple[str, ...] = ('confusion', 'scores', 'conf', 'ece', 'ece_conf', 'losses', 'image')
IMAGE_KEYS += ('pixels', 'objects', 'with_objects')
FORMAT = 3  # of files
OBJECT_SCORES = ('entropy', 'max_prob', 'max_logit')  # GenVal's three, per image
FINE_KEYS = ('scores', 'conf', 'classwise', 'classwise_conf')  # of all images together, at K bins


@dataclasses.dataclass
class Pooled:
  """Counts added over images, from which every measure follows.

  confusion [C, C]; scores [S, 3, K] outcomes by bin; conf [K] summed confidence by bin of max_prob;
  ece [2, E, 2] and ece_conf [2, E]; losses [2]; pixels; classwise [C, 2, K] and classwise_conf
  [C, K] where asked for; objects [O] and with_objects [O], see `objects_of`. `names`: the scores.
  K is BINS, or COARSE for intervals over images.
  """

  names: tuple[str, ...]
  counts: dict[str, np.ndarray]
  absent: tuple[int, ...] = ()  # classes that the labels cannot have

  def __getattr__(self, key: str) -> Any:
    try:
      return self.__dict__['counts'][key]
    except KeyError:
      raise AttributeError(key) from None

  def outcomes(self, score: str, *kinds: int) -> np.ndarray:
    """Pixels of these outcomes by bin of the score [K], ascending certainty."""
    return self.scores[self.names.index(score)][list(kinds)].sum(0)


class ImageCounts:
  """Add the Counts of batches, then ask for `pooled`; those of other images merge by `merged`."""

  def __init__(self, names: Sequence[str] = SCORES):
    self.names = tuple(names)
    self.absent: tuple[int, ...] = ()
    self.ids: list[str] = []
    self.groups: list[str] = []
    self.fine: dict[str, np.ndarray] = {}
    self._parts: list[dict[str, np.ndarray]] = []
    self._values: list[tuple[np.ndarray, ...]] = []  # of exact mode: not saved, not merged

  def add(self, counts: Counts, ids: Any, groups: Any, keep: Any) -> None:
    """The images of a batch whose `keep` is True; ids and groups are those of the whole batch."""
    keep = np.asarray(keep, bool)
    arrays = {k: v[keep] for k, v in on_host(counts).items()}
    if not (sound := np.isfinite(arrays['image']).all(-1)).all():
      name = np.asarray(ids)[keep][~sound][0]
      raise UserError(f'image {name}: its logits are not finite\n  the model or its file is broken')
    for key in FINE_KEYS:
      if key in arrays:
        self.fine[key] = self.fine.get(key, 0) + arrays[key].sum(0)
    rows = zip(arrays['scores'], arrays['image'], arrays['pixels'], strict=True)
    arrays['objects'] = np.array([objects_of(self.names, *row) for row in rows]).reshape(-1, 14)
    arrays['with_objects'] = (~np.isnan(arrays['objects'])).astype(np.int64)
    arrays['objects'] = np.nan_to_num(arrays['objects'])
    arrays['scores'], arrays['conf'] = _coarse(arrays['scores']), _coarse(arrays['conf'])
    self._parts.append({k: arrays[k] for k in IMAGE_KEYS})
    self.ids += [str(x) for x, ok in zip(ids, keep, strict=True) if ok]
    self.groups += [str(x) for x, ok in zip(groups, keep, strict=True) if ok]

  def add_values(self, values: np.ndarray, outcomes: np.ndarray, conf: np.ndarray) -> None:
    """Every pixel's coordinates [B, S, N], outcome [B, N] and confidence [B, N]."""
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    self._values.append((flat, outcomes.reshape(-1), conf.reshape(-1)))

  @property
  def exact(self) -> tuple[np.ndarray, ...] | None:
    """Coordinates [S, N], outcomes [N], confidences [N] of all pixels, where they were kept."""
    if not self._values:
      return None
    return tuple(np.concatenate(parts, -1) for parts in zip(*self._values, strict=True))

  @property
  def images(self) -> dict[str, np.ndarray]:
    """Counts of each image [I, ..]; scores and conf at COARSE bins."""
    if len(self._parts) > 1:
      join = {k: np.concatenate([p[k] for p in self._parts]) for k in IMAGE_KEYS}
      self._parts = [join]
    return self._parts[0] if self._parts else {}

  def pooled(self) -> Pooled:
    """All images together, at the full resolution."""
    totals = {k: v.sum(0) for k, v in self.images.items()}
    return Pooled(self.names, totals | self.fine, self.absent)

  def subset(self, rows: np.ndarray) -> Pooled:
    """Some images [I] (bool or indices), at the coarse resolution."""
    return Pooled(self.names, {k: v[rows].sum(0) for k, v in self.images.items()}, self.absent)

  def weighted(self, times: np.ndarray) -> list[Pooled]:
    """Images counted `times` [R, I] -> R pooled counts, at the coarse resolution."""
    flat = {k: v.reshape(len(v), -1).astype(np.float64) for k, v in self.images.items()}
    sums = {k: times.astype(np.float64) @ v for k, v in flat.items()}
    shapes = {k: v.shape[1:] for k, v in self.images.items()}
    row = lambda r: {k: v[r].reshape(shapes[k]) for k, v in sums.items()}
    return [Pooled(self.names, row(r), self.absent) for r in range(len(times))]

  @property
  def group(self) -> np.ndarray:
    """[I]: a number for each image's group; without groups each image is one."""
    names = self.groups if any(self.groups) else self.ids
    return np.unique(names, return_inverse=True)[1].reshape(-1)

  def resampled(self, resamples: int, rng: np.random.Generator) -> Iterator[Pooled]:
    """Whole groups of images drawn with replacement, as many as there are; none of a single one.

    Equal groups and generators give equal draws, so that models see the same images.
    """
    group = self.group
    units = int(group.max(initial=-1)) + 1
    for start in range(0, resamples if units > 1 else 0, 50):  # blocks bound the memory
      drawn = min(50, resamples - start)
      times = rng.multinomial(units, np.full(units, 1 / units), drawn)
      yield from self.weighted(times[:, group])

  def save(self, path: pathlib.Path, about: Any) -> None:
    """One .npz with `about` (JSON) in it; it appears under its name when it is whole."""
    arrays: dict[str, Any] = {f'image/{k}': v for k, v in self.images.items()}
    arrays |= {f'fine/{k}': v for k, v in self.fine.items()}
    names = dict(names=self.names, absent=self.absent, ids=self.ids, groups=self.groups)
    head = json.dumps(names | dict(about=about, format=FORMAT))
    with folders.whole(path) as part, part.open('wb') as file:
      np.savez_compressed(file, told=np.array(head), **arrays)


def load(path: pathlib.Path) -> tuple[ImageCounts, Any]:
  """What `ImageCounts.save` wrote -> (counts, about); of another version's file none, and about {}.

  Raises UserError for a damaged file.
  """
  again = 'delete it: it is made again'
  arrays = array_files.read(path, again)
  with reading(path, 'counts of a study', again):
    head = json.loads(str(arrays.pop('told')))
    if head.get('format') != FORMAT:
      return ImageCounts(), {}
    counts = ImageCounts(head['names'])
    counts.ids, counts.groups, counts.absent = head['ids'], head['groups'], tuple(head['absent'])
    counts._parts = [{k: arrays.pop(f'image/{k}') for k in IMAGE_KEYS}]
    counts.fine = {k.removeprefix('fine/'): v for k, v in arrays.items()}
    _check(counts)
    return counts, dict(head['about'])


def _check(counts: ImageCounts) -> None:
  """Raises ValueError for counts that no image has, and for rows that are not those of the ids."""
  rows = {len(counts.ids), len(counts.groups), *map(len, counts.images.values())}
  if len(rows) > 1:
    raise ValueError(f'rows of {sorted(rows)} images')
  if strange := {*counts.fine} - {*FINE_KEYS} or {'scores', 'conf'} - {*counts.fine}:
    raise ValueError(f'{min(strange)} is unknown or missing')
  for name, array in (*counts.images.items(), *counts.fine.items()):
    if array.dtype.kind not in 'iuf' or not np.isfinite(array).all():
      raise ValueError(f'{name} holds {array.dtype} numbers that count nothing')
    if array.dtype.kind != 'f' and array.min(initial=0) < 0:
      raise ValueError(f'{name} holds {array.min()}')


def merged(parts: Sequence[ImageCounts]) -> ImageCounts:
  """Several data sets as one."""
  out = ImageCounts(parts[0].names)
  out.absent = tuple(sorted(set.intersection(*(set(t.absent) for t in parts))))
  for part in parts:
    if part.names != out.names:
      raise ValueError(f'scores differ: {part.names} and {out.names}')
    out.ids += part.ids
    out.groups += part.groups
    out._parts += [part.images]
    for key, value in part.fine.items():
      out.fine[key] = out.fine.get(key, 0) + value
  return out


def census_of(counts: ImageCounts) -> Census:
  """What the labels of the pixels that were looked at hold."""
  images = counts.images
  scored = int(images['scores'][:, 0].sum())  # every pixel but the ignored ones has an outcome
  pixels = int(images['pixels'].sum())
  return Census(images['confusion'].sum((0, 2)), pixels - scored, pixels)


def objects_of(names: Sequence[str], scores: np.ndarray, image: np.ndarray, pixels: int) -> list:
  """GenVal's numbers of one image (arXiv 2312.09231), nan without an unknown object.

  Its mean entropy inside and that over the mean outside; then AUROC, FPR95, AUPR of the object and
  AUPR of the rest for each of OBJECT_SCORES.
  """
  inside = scores[0][UNKNOWN].sum()
  if not inside:
    return [np.nan] * 14
  mean = image[2] / inside
  outside = (image[1] - image[2]) / max(pixels - inside, 1)
  values = [mean, mean / outside if outside > 0 else np.nan]
  for score in OBJECT_SCORES:
    if score not in names:
      values += [np.nan] * 4
      continue
    counts = scores[names.index(score)]
    strange = counts[UNKNOWN][::-1], counts.sum(0)[::-1] - counts[UNKNOWN][::-1]
    values += [f(*strange) for f in (ranking.auroc, ranking.fpr_at_tpr, ranking.aupr)]
    values.append(ranking.aupr(strange[1][::-1], strange[0][::-1]))
  return values


def on_host(counts: Counts) -> dict[str, np.ndarray]:
  """Device counts -> int64 and float64 of each image [B, ..], blocks added, halves joined."""
  arrays = {k: np.asarray(v) for k, v in jax.device_get(counts)._asdict().items() if v is not None}
  for key in ('conf', 'ece_conf', 'classwise_conf'):
    if key in arrays:
      arrays[key] = onepass.unfixed(arrays[key].astype(np.int64).sum(1))
  for key in ('losses', 'image'):
    arrays[key] = arrays[key].astype(np.float64).sum(1)
  whole = lambda v: v.astype(np.int64) if v.dtype.kind in 'iu' else v
  return {k: whole(v) for k, v in arrays.items()}


def _coarse(x: np.ndarray) -> np.ndarray:
  """[.., BINS] -> [.., COARSE]"""
  return x.reshape(*x.shape[:-1], COARSE, BINS // COARSE).sum(-1)
