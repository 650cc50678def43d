"""Generated sets as they lie in folders: ours, and those that others generated in GenVal's layout.

See records.py for the layout. Of ours an image counts once its record is there. Of others' sets,
which have no records, the files say all: an image with an object is evaluated where its mask is a
picture; a text in its place is why it is not.

What a user finds unfit by eye is listed in OUT/rejected_by_eye.txt, an id a line, `#` begins a
remark. Every reader leaves these images out and counts them.
"""

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from car_jax import files
from car_jax.errors import UserError, nearest
from car_jax.generate import records
from car_jax.generate.records import (
  ACCEPTED,
  GROUPS,
  KINDS,
  MASKS,
  POSITIONS,
  REFINED,
  REJECTED,
  Kind,
)

BY_EYE = 'rejected_by_eye.txt'
STRUCK = 'rejected by eye'
STATUSES = (ACCEPTED, REJECTED, STRUCK)
Report = Callable[[Any, str], Any]


@dataclasses.dataclass(frozen=True)
class Item:
  """An image of a set. group: its domain or object; scene: CITY/NAME, '' where it is not known.

  files: what it is, as in records.places_of, -> path, of what is there.
  """

  id: str
  kind: Kind
  group: str
  index: int
  scene: str
  files: Mapping[str, pathlib.Path]
  status: str = ACCEPTED
  reason: str = ''
  record: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def picture(self) -> pathlib.Path:
    """What a segmenter is shown: the refined image, where the set has it."""
    return self.files.get('refined') or self.files['image']


def raised(path: Any, what: str) -> None:
  raise UserError(f'{path}: {what}')


def read(
  folder: str | pathlib.Path,
  kinds: Sequence[Kind] = KINDS,
  *,
  problem: Report = raised,
  note: Report = lambda path, what: None,
) -> list[Item]:
  """The images of a folder, sorted, with what the user rejected by eye.

  problem is called with a path and what is wrong with it, note with what is passed over and why.
  Raises UserError for a folder that holds no set, and for one that cannot be listed.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise UserError(f'no folder {folder}')
  by_kind: dict[Kind, list[Item]] = {
    kind: [*_of_kind(folder, kind, problem if kind in kinds else note, note)] for kind in KINDS
  }
  if not any(by_kind.values()):
    raise UserError(
      f'{folder} holds no generated set\n  expected DOMAIN/leftImg8bit/val/CITY/ or '
      f'{POSITIONS}/OBJECT/N.png; see docs/generate.md'
    )
  struck = rejected_by_eye(folder, [i.id for items in by_kind.values() for i in items], problem)
  marked = lambda item: dataclasses.replace(item, status=STRUCK, reason=struck[item.id])
  return [marked(i) if i.id in struck else i for kind in kinds for i in by_kind[kind]]


def rejected_by_eye(folder: pathlib.Path, ids: Iterable[str], problem: Report) -> dict[str, str]:
  """Ids of the user's list -> the remark beside each. Ids of no image are problems."""
  path = folder / BY_EYE
  if not path.exists():
    return {}
  known, struck = {*ids}, {}
  for number, line in enumerate(files.read_text(path).splitlines(), 1):
    text, *remark = re.split(r'(?:^|\s)#', line, maxsplit=1)
    if not (name := text.strip()):
      continue
    if name not in known:
      problem(path, f'line {number}: no image {name!r}\n{nearest(name, known)}')
    struck[name] = ''.join(remark).strip()
  return struck


def counts(items: Iterable[Item]) -> dict[str, collections.Counter[str]]:
  """Group -> how many images there are of each status."""
  out: dict[str, collections.Counter[str]] = {}
  for item in items:
    out.setdefault(item.group, collections.Counter())[item.status] += 1
  return out


def acceptance(items: Iterable[Item]) -> list[str]:
  """A line for each group: how many of its images are accepted, and what became of the others."""
  lines = []
  for group, of in counts(items).items():
    rest = ', '.join(f'{of[s]:,} {s}' for s in STATUSES[1:] if of[s])
    rest = f', {rest}' if rest else ''
    lines.append(f'{group}: {of[ACCEPTED]:,} of {of.total():,} accepted{rest}')
  return lines


def write_index(out: pathlib.Path) -> list[Item]:
  """Makes OUT/index.jsonl anew from all records -> the images of our sets there.

  What killed runs left half-written is removed.
  """
  records.remove_parts(out)
  items = [item for item in read(out) if item.record]
  row = lambda i: dict(i.record) | dict(status=i.status, reason=i.reason)
  text = ''.join(json.dumps(row(item)) + '\n' for item in items)
  records.write(out / records.INDEX, text.encode())
  return items


def _of_kind(folder: pathlib.Path, kind: Kind, problem: Report, note: Report) -> Iterator[Item]:
  ours = (folder / records.RECORDS / kind).is_dir()
  listed = _styles if kind == 'style' else _objects
  there = dict(listed(folder, note if ours else problem, note))
  if not ours:
    yield from sorted(there.values(), key=lambda i: (i.group, i.index, i.id))
    return
  for record in records.records(folder, kind):
    paths = {what: folder / place for what, place in record['files'].items()}
    for path in paths.values():
      if not path.is_file():
        problem(path, 'missing, but its record is there; make it again')
    there.pop(record['id'], None)
    yield Item(
      id=record['id'],
      kind=kind,
      group=record[GROUPS[kind]],
      index=record['index'],
      scene=record['scene'],
      files=paths,
      status=record['status'],
      reason=record['reason'],
      record=record,
    )
  for item in there.values():
    note(item.files['image'], 'image without a record: it was not finished')


def _styles(folder: pathlib.Path, problem: Report, note: Report) -> Iterator[tuple[str, Item]]:
  """DOMAIN/{leftImg8bit,gtFine,original}/val/CITY/DOMAIN_N_NAME_..png -> items by id."""
  for place in sorted(folder.iterdir()):
    if place.name in records.TAKEN or not (place / 'leftImg8bit').is_dir():
      continue
    domain, images = place.name, {}
    for path in files.walk(place / 'leftImg8bit', passed=note):
      parts = path.relative_to(place).parts
      name = re.fullmatch(rf'{re.escape(domain)}_(\d+)_(.+)_leftImg8bit\.png', path.name)
      if not name or len(parts) != 4 or parts[1] != 'val' or not path.name.isprintable():
        problem(path, f'expected val/CITY/{domain}_N_NAME_leftImg8bit.png; move others away')
        continue
      index, scene = int(name[1]), f'{parts[2]}/{name[2]}'
      places = records.places_of('style', domain, index, scene)
      paths = {k: folder / p for k, p in places.items() if k == 'image' or (folder / p).exists()}
      if 'labels' not in paths:
        problem(folder / places['labels'], f'missing, but its image {path} is there')
        continue
      one = records.id_of('style', domain, index, scene)
      images[one] = Item(one, 'style', domain, index, scene, paths)
    yield from images.items()
    used = {path for item in images.values() for path in item.files.values()}
    for part in ('gtFine', 'original'):
      for path in files.walk(place / part, passed=note) if (place / part).is_dir() else ():
        if path not in used:
          note(path, 'file of no image, not read')


def _objects(folder: pathlib.Path, problem: Report, note: Report) -> Iterator[tuple[str, Item]]:
  """with_positions/OBJECT/N.png with its labels, mask and refined image -> items by id."""
  if not (folder / POSITIONS).is_dir():
    return
  if not (folder / MASKS).is_dir():
    problem(folder / MASKS, 'missing: without masks nobody knows where the objects are')
  refined = (folder / REFINED).is_dir()
  for place in sorted(p for p in (folder / POSITIONS).iterdir() if not files.is_leftover(p)):
    if not place.is_dir():
      note(place, 'file beside the objects, not read')
      continue
    for path in files.walk(place, passed=note):
      name = re.fullmatch(r'(\d+)(|_gt|_ood|_pos)\.(?:png|json)', path.name)
      if path.parent != place or not name:
        note(path, 'file beside images with objects, not read')
      elif not name[2]:
        item = _object(folder, place.name, int(name[1]), refined, problem)
        yield item.id, item
      elif not path.with_name(f'{name[1]}.png').exists():
        problem(path.with_name(f'{name[1]}.png'), f'missing, but {path.name} is there')


def _object(folder: pathlib.Path, name: str, index: int, refined: bool, problem: Report) -> Item:
  places = records.places_of('ood', name, index, '')
  paths = {k: folder / p for k, p in places.items() if (folder / p).exists()}
  if 'labels' not in paths:
    problem(folder / places['labels'], 'missing, but its image is there')
  if {'mask', 'reason'} <= {*paths}:
    problem(paths['reason'], 'says why there is no mask, but there is one')
  status, reason = ACCEPTED, ''
  if 'mask' not in paths:
    status, reason = REJECTED, 'no file of a mask'
    if 'reason' in paths:
      text = files.read_bytes(paths['reason']).decode(errors='replace').strip()
      reason = text[:300] or 'no reason given'
  elif refined and 'refined' not in paths:
    problem(folder / places['refined'], 'missing, but other images of the set are refined')
  return Item(f'{name}/{index}', 'ood', name, index, '', paths, status, reason)
