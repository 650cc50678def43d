"""Which file of predictions belongs to which label: by place and name, or by a CSV of pairs.

Everything in a folder is used, or counted and named on stderr; hidden files are passed over.
"""

import csv
import dataclasses
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from car_jax import files, pictures, sharding
from car_jax.errors import UserError, nearest, reading
from car_jax.predict.volumes import NIFTI

ENDINGS = ('.npy', '.npz', '.safetensors', *NIFTI)
LABEL_ENDINGS = (*pictures.EXACT, *NIFTI)
# endings of Cityscapes' file names, of which none is part of an image's name
LABEL_ENDS = ('_gtFine_labelTrainIds', '_gtFine_labelIds', '_gt_labelTrainIds', '_gt_labelIds')
IMAGE_ENDS = ('_leftImg8bit', '_rgb_anon', '_logits', '_probabilities', '_samples')
PLACES = ('prediction', 'label', 'image')  # a CSV's columns of files
SEVERAL = ';'  # between files of one cell
COLUMNS = (*PLACES, 'group')
Files = dict[str, tuple[pathlib.Path, ...]]  # an image's id -> its files; of pairs one each


@dataclasses.dataclass(frozen=True)
class Group:
  """An image's files, in the order of their numbers; of volumes the slice that is meant."""

  id: str
  group: str
  predictions: tuple[pathlib.Path, ...]
  labels: tuple[pathlib.Path, ...]
  image: pathlib.Path | None = None
  slice: int | None = None


def ending(path: pathlib.PurePath) -> str:
  """'.png' of a.png, '.nii.gz' of a.nii.gz."""
  name = path.name.lower()
  return next((end for end in NIFTI if name.endswith(end)), path.suffix.lower())


def pairs(folder: pathlib.Path, labels: str) -> list[Group]:
  """Every prediction with its label, in the order of their paths.

  A label is at the same place in its folder as the prediction in its own, or it is the only one of
  its name. Pictures are predictions where the folder has no arrays. Raises UserError for a folder
  without predictions, for a prediction with two labels, and one that names predictions without
  any, or predictions that are the same. Files that are not used are counted on stderr.
  """
  if labels.lower().endswith('.csv'):
    every = listed(folder, pathlib.Path(labels))
    if several := [g for g in every if len(g.predictions) > 1]:
      raise UserError(
        f'{labels}: {several[0].id} has {len(several[0].predictions)} predictions; reliability is '
        'scored on one\n  car-jax score compares sets of samples with sets of readers'
      )
    return every
  ids = prediction_files(folder, labels)
  place = pathlib.Path(labels)
  inside = files.walk(place)
  known = label_files(place, inside)
  labelled = matched(ids, known, place, _lying(inside))
  say_unused(labelled, known, place, inside)
  out = [Group(key, key, ids[key], label) for key, label in labelled.items()]
  _check_shared(out)
  return out


def prediction_files(folder: pathlib.Path, labels: str) -> Files:
  """The predictions of a folder by their place in it, without ending; see `pairs`.

  Raises UserError where there is none, where one place has two, and where labels are no folder.
  """
  if not folder.is_dir():
    raise UserError(f'no folder of predictions {folder}\n  see docs/reliability.md for its layout')
  _check_not_whole(folder)
  inside = files.walk(folder)
  predictions = [p for p in inside if ending(p) in ENDINGS]
  predictions = predictions or [p for p in inside if ending(p) in LABEL_ENDINGS]
  if not predictions:
    raise UserError(
      f'{folder} holds no prediction ({", ".join(ENDINGS)}, or pictures of class numbers)'
      f'{_lying(inside)}'
    )
  if not labels or not pathlib.Path(labels).is_dir():
    raise UserError(
      f'no labels {labels!r} for {folder}\n'
      "  give --labels FOLDER or FILE.csv; in a study, the set's labels"
    )
  _say_left(folder, [p for p in inside if p not in {*predictions}], 'is no prediction: not scored')
  ids: Files = {}
  for path in predictions:
    key = str(path.relative_to(folder).with_name(_bare(path, (*IMAGE_ENDS, *LABEL_ENDS))))
    if any('\ud800' <= letter <= '\udfff' for letter in key):  # what a text cannot hold
      raise UserError(f'{str(path)!a} has a name that is no UTF-8\n  rename it')
    if (other := ids.setdefault(key, (path,))) != (path,):
      raise UserError(f'one image has two predictions:\n  {other[0]}\n  {path}')
  return ids


def _check_not_whole(folder: pathlib.Path) -> None:
  """Raises UserError for all that car-jax predict wrote: its parts are of several kinds."""
  parts = [folder / kind for kind in ('samples', 'probabilities', 'masks')]
  if (folder / 'settings.json').is_file() and (there := [str(p) for p in parts if p.is_dir()]):
    raise UserError(f'{folder} is the output of car-jax predict\n  give {" or ".join(there)}')


def _lying(inside: Sequence[pathlib.Path]) -> str:
  """What lies in a folder instead of what was looked for, as the end of a message."""
  kinds = Counter(p.suffix or 'no ending' for p in inside)
  listed = ', '.join(f'{n} of {kind}' for kind, n in kinds.most_common(4))
  return f'\n  what lies there: {listed or "nothing"}'


def _say_left(folder: pathlib.Path, left: Sequence[pathlib.Path], what: str) -> None:
  """One line on stderr for files that are not used."""
  if left:
    named = ', '.join(str(p.relative_to(folder)) for p in left[:4])
    more = f' and {len(left) - 4} more' if len(left) > 4 else ''
    sharding.say(f'{folder}: {named}{more} {what}', sys.stderr)


def _check_shared(every: Sequence[Group]) -> None:
  """Predictions of one label: refused where they are copies, else counted on stderr."""
  first: dict[pathlib.Path, Group] = {}
  shared = []
  for pair in every:
    if (other := first.setdefault(pair.labels[0], pair)) is pair:
      continue
    shared += [pair]
    one, two = other.predictions[0], pair.predictions[0]
    with reading(two, 'a prediction'):
      alike = one.stat().st_size == two.stat().st_size and one.stat().st_size > 0
      if alike and one.read_bytes() == two.read_bytes():
        raise UserError(f'one image has the same prediction twice:\n  {one}\n  {two}')
  if shared:
    named = ', '.join(p.id for p in shared[:4])
    sharding.say(f'{len(shared)} predictions share a label with another: {named}', sys.stderr)


def candidates(ids: Iterable[str], known: Iterable[str]) -> dict[str, list[str]]:
  """Id -> ids of `known` that may be the same image: it, or else those of its name alone which are
  nobody's own."""
  ids, places = [*ids], {*known}
  named: dict[str, list[str]] = {}
  for key in sorted(places - {*ids}):
    named.setdefault(pathlib.Path(key).name, []).append(key)
  return {key: [key] if key in places else named.get(pathlib.Path(key).name, []) for key in ids}


def matched(ids: Files, known: Files, place: pathlib.Path, lying: str = '') -> Files:
  """Predictions by id -> the files of their labels, in the same order; see `candidates`.

  place: the folder of labels; lying: what is there, where that is no label. Raises UserError.
  """
  out: Files = {}
  for key, fits in candidates(ids, known).items():
    if len(fits) > 1:
      one, two = (known[fit][0] for fit in fits[:2])
      raise UserError(
        f'{ids[key][0]} has no label at its place and two of its name:\n  {one}\n  {two}\n'
        f'  put it at {place / key}.png, or give --labels FILE.csv'
      )
    if fits:
      out[key] = known[fits[0]]
  if missing := [key for key in ids if key not in out]:
    shown = '\n'.join(f'  {ids[key][0]}' for key in missing[:20])
    names = {pathlib.Path(key).name for key in known}
    close = nearest(pathlib.Path(missing[0]).name, names) if names else ''
    close = close or f'  labels are {", ".join(LABEL_ENDINGS)}{lying}'
    raise UserError(f'{len(missing)} predictions have no label in {place}:\n{shown}\n{close}')
  return out


def say_unused(
  used: Files,
  known: Files,
  place: pathlib.Path,
  inside: Sequence[pathlib.Path],
  endings: Sequence[str] = LABEL_ENDINGS,
) -> None:
  """Lines on stderr for labels without a prediction, and for files that are no labels."""
  end = lambda paths: _stem(paths[0]).removeprefix(_bare(paths[0], LABEL_ENDS))
  ends = {end(paths) for paths in used.values()}  # pictures of other kinds are no labels
  if unused := {paths for paths in known.values() if end(paths) in ends} - {*used.values()}:
    sharding.say(f'{len(unused)} labels in {place} have no prediction: not scored', sys.stderr)
  other = [p for p in inside if ending(p) not in endings]
  _say_left(place, other, f'is no label ({", ".join(endings)}): not read')


def label_files(
  folder: pathlib.Path, inside: Iterable[pathlib.Path], endings: Sequence[str] = LABEL_ENDINGS
) -> Files:
  """Labels by their place in the folder, without ending. Train ids go before label ids."""
  known: Files = {}
  for path in sorted((p for p in inside if ending(p) in endings), reverse=True):
    name = _bare(path, LABEL_ENDS)
    (other,) = known.setdefault(str(path.relative_to(folder).with_name(name)), (path,))
    if other != path and other.name != path.name.replace('_labelIds', '_labelTrainIds'):
      raise UserError(f'one image has two labels:\n  {path}\n  {other}')
  return known


def _stem(path: pathlib.Path) -> str:
  return path.name[: len(path.name) - len(ending(path))]


def _bare(path: pathlib.Path, ends: Sequence[str]) -> str:
  stem = _stem(path)
  for end in ends:
    stem = stem.removesuffix(end)
  return stem


def listed(folder: pathlib.Path, table: pathlib.Path) -> list[Group]:
  """Rows of a CSV; relative paths start from the folder of predictions, then from the CSV's.

  A cell of predictions or labels is a file, several with `;` between them, or a folder of them.
  """
  rows = _rows(table)
  out: list[Group] = []
  missing: list[str] = []
  seen: dict[str, int] = {}
  for k, row in enumerate(rows, 2):
    if not (row['prediction'] and row['label']):
      raise UserError(f'{table}: row {k} lacks a prediction or a label: {[*row.values()]}')
    at = {c: _cell(row[c], folder, table.parent) for c in PLACES if row.get(c)}
    missing += [f'  {c} {str(p)[:200]!r}' for c, of in at.items() for p in of if not _is_there(p)]
    first = os.path.normpath(row['prediction'].partition(SEVERAL)[0])
    key = first[: len(first) - len(ending(pathlib.PurePath(first)))]
    for name in {key, *(os.path.realpath(p) for p in at['prediction'] if not missing)}:
      if (other := seen.setdefault(name, k)) != k:
        raise UserError(
          f'{table}: rows {other} and {k} have one prediction, {row["prediction"]}\n'
          '  leave one of them out'
        )
    group = row.get('group') or key
    image = at.get('image', (None,))
    if len(image) > 1:
      raise UserError(f'{table}: row {k} has {len(image)} files as image; expected one')
    out.append(Group(key, group, at['prediction'], at['label'], *image))
  if missing:
    raise UserError(f'{len(missing)} files of {table} are missing:\n' + '\n'.join(missing[:20]))
  if not out:
    raise UserError(f'{table} has no row below its header')
  return out


def _rows(table: pathlib.Path) -> list[dict[str, str]]:
  """The CSV's rows. Raises UserError for another form, and for cells that no column names."""
  if not table.exists():
    raise UserError(f'no such list of labels {table}')
  text = files.read_text(table, 'CSV in UTF-8', 'save it as UTF-8')
  with reading(table, 'CSV in UTF-8'):
    lines = [*csv.reader(text.splitlines(keepends=True), strict=True)]
  has = lines[0] if lines else []
  if {'prediction', 'label'} - {*has}:
    raise UserError(f'{table} needs the columns prediction and label; it has {has}')
  if twice := [name for name, n in Counter(has).items() if n > 1]:
    raise UserError(f'{table} has two columns {twice[0]!r}')
  for name in has:
    hint = nearest(name, COLUMNS)
    if name not in COLUMNS and 'did you mean' in hint:
      raise UserError(f'{table} has an unknown column {name!r}\n{hint}')
  if other := [name for name in has if name not in COLUMNS]:
    sharding.say(f'{table}: the columns {", ".join(other)} are not used', sys.stderr)
  out: list[dict[str, str]] = []
  for k, line in enumerate(lines[1:], 2):
    if len(line) > len(has):
      raise UserError(f'{table}: row {k} has {len(line)} cells, the header {len(has)}: {line}')
    if any(line):
      out.append(dict(zip(has, line + [''] * (len(has) - len(line)), strict=True)))
  return out


def _cell(text: str, *starts: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """The files of a cell, a folder's in the order of their names."""
  if SEVERAL in text and not _is_there(_place(text, *starts)):
    return tuple(_place(part.strip(), *starts) for part in text.split(SEVERAL) if part.strip())
  if folder := next((p for start in starts if _is_there(p := start / text, folder=True)), None):
    inside = files.walk(folder)
    used = [p for p in inside if ending(p) in (*ENDINGS, *LABEL_ENDINGS)]
    _say_left(folder, [p for p in inside if p not in used], 'is no array or picture: not read')
    return tuple(used) or (folder,)
  return (_place(text, *starts),)


def _place(text: str, *starts: pathlib.Path) -> pathlib.Path:
  return next((p for start in starts if _is_there(p := start / text)), pathlib.Path(text))


def _is_there(path: pathlib.Path, folder: bool = False) -> bool:
  try:
    return path.is_dir() if folder else path.is_file()
  except (OSError, ValueError):  # such as a name that is too long
    return False
