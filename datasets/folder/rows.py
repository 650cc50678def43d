"""Which image has which masks: from a folder or a CSV, every file and every cell accounted for."""

import collections
import csv
import dataclasses
import io
import pathlib
import re

from car_jax import files, pictures
from car_jax.datasets import base, common
from car_jax.errors import UserError, nearest, reading

SPLIT_NAMES = {'val': 'validation'}  # other names of base.SPLITS
LIKE_SPLITS = {'training': 'train', 'trn': 'train', 'valid': 'validation', 'dev': 'validation'}
LIKE_SPLITS |= {'testing': 'test', 'tst': 'test'}  # what may be meant, so it is asked
COLUMNS = ('image', 'masks', 'split', 'group')
LAYOUT = (
  '  expected images/NAME.png with either masks/NAME/READER.png or labels/NAME.png (or '
  'masks/NAME.png), or a CSV; see docs/own_data.md'
)


@dataclasses.dataclass(frozen=True)
class Row:
  image: pathlib.Path
  masks: tuple[pathlib.Path, ...]
  split: str  # empty: to be drawn
  group: str
  name: str


def read_csv(path: pathlib.Path) -> list[Row]:
  """Raises UserError: another file, an unknown or doubled column, a row of another length."""
  text = files.read_text(path, 'a CSV of UTF-8 text')
  if '\0' in text:
    raise UserError(f'{path} cannot be read as a CSV (it holds a zero byte)')
  with reading(path, 'a CSV'):
    reader = csv.reader(io.StringIO(text, newline=''), strict=True)
    lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader if line]
  if not lines:
    raise UserError(f'{path} is empty\n  expected a first line such as image,masks,split,group')
  columns = _columns(path, lines[0][1])
  rows = [_row(f'{path}:{n}', path.parent, columns, cells) for n, cells in lines[1:]]
  if not rows:
    raise UserError(f'{path} lists no image')
  return rows


def _columns(path: pathlib.Path, columns: list[str]) -> list[str]:
  """The names of the first line, if all of them mean something. Raises UserError."""
  masks = [c for c in columns if re.fullmatch(r'masks|mask_[0-9]+', c)]
  for column, there in (('image', 'image' in columns), ('masks', masks)):
    if not there:
      raise UserError(f'{path} has no column {column!r}\n{nearest(column, columns)}')
  for column, count in collections.Counter(columns).items():
    if count > 1:
      raise UserError(f'{path} has {count} columns {column!r}\n  give each a name of its own')
    if column not in (*COLUMNS, *masks):
      raise UserError(
        f'{path} has a column {column!r}, which means nothing here\n'
        f'{nearest(column, (*COLUMNS, "mask_1"))}\n'
        '  rename it or take it out; columns are image, masks or mask_1, mask_2, ..., split, group'
      )
  return columns


def _row(where: str, home: pathlib.Path, columns: list[str], cells: list[str]) -> Row:
  if len(cells) != len(columns):
    raise UserError(
      f'{where}: {len(cells)} cells under {len(columns)} columns, first {cells[0]!r}\n'
      '  several masks of one cell are separated by ;, and empty cells keep their comma'
    )
  of = dict(zip(columns, cells, strict=True))
  if not of['image']:
    raise UserError(f'{where}: no image')
  split = SPLIT_NAMES.get(of.get('split', ''), of.get('split', ''))
  if split and split not in base.SPLITS:
    raise UserError(f'{where}: unknown split {split!r}\n{nearest(split, base.SPLITS)}')
  listed = [m.strip() for c in columns if c.startswith('mask') for m in of[c].split(';')]
  masks = tuple(home / m for m in listed if m)
  name = str(pathlib.PurePosixPath(of['image']).with_suffix(''))
  return Row(home / of['image'], masks, split, of.get('group') or name, name)


def read_folder(root: pathlib.Path, problems: common.Problems, unlabelled: bool) -> list[Row]:
  """Raises UserError when the layout is another one. Where `unlabelled`, images/ will do.

  A file that is no picture, or belongs to no image, is a problem.
  """
  kind = _kind(root, problems, unlabelled)
  images = _pictures(root / 'images', problems)
  marks = _pictures(root / kind, problems) if (root / kind).is_dir() else []
  known = {path.relative_to(root / 'images').with_suffix('') for path in images}
  of: dict[pathlib.PurePath, list[pathlib.Path]] = collections.defaultdict(list)
  for path in marks:
    within = path.relative_to(root / kind)
    alone = within.with_suffix('')  # the image of a file that is all of an image's
    of_reader = kind == 'masks' and (within.parent in known or alone not in known)
    of[within.parent if of_reader else alone].append(path)
  _no_doubles(of, kind, problems)
  rows = []
  for path in images:
    relative = path.relative_to(root / 'images').with_suffix('')
    name, split = relative.as_posix(), _split(path, relative)
    rows.append(Row(path, tuple(of.get(relative, ())), split, name, name))
  for key, paths in of.items():
    for path in paths if key not in known else ():
      problems.add(
        path, f'belongs to no image: there is no {root / "images" / key}.png or the like'
      )
  if missing := [row for row in rows if not row.split] if any(row.split for row in rows) else []:
    raise UserError(
      f'some folders of {root / "images"} are splits, but {missing[0].image} lies in none of them\n'
      f'  put every picture into one of {", ".join(base.SPLITS)}, or use a CSV'
    )
  if not rows:
    problems.stop_if_any(root)
    raise UserError(f'{root / "images"} holds no picture ({", ".join(pictures.ENDINGS)})')
  return rows


def _kind(root: pathlib.Path, problems: common.Problems, unlabelled: bool) -> str:
  """'masks' or 'labels'; what lies beside is noted. Raises UserError for another layout."""
  with reading(root, 'a folder'):
    there = sorted(root.iterdir())
    kinds = [kind for kind in ('masks', 'labels') if (root / kind).is_dir()]
  kinds = kinds or ['labels'] * unlabelled
  if not (root / 'images').is_dir() or len(kinds) != 1:
    folders = [p.name for p in there if p.is_dir() and not files.is_leftover(p)]
    raise UserError(
      f'{root} has no folders images/ and masks/, or images/ and labels/, but '
      f'{", ".join(folders) or "none"}\n{LAYOUT}'
    )
  for path in there:
    if files.is_leftover(path):
      problems.note(path, 'leftover of the system, passed over')
    elif path.name not in ('images', *kinds):
      problems.note(path, f'beside images/ and {kinds[0]}/, not read')
  return kinds[0]


def _pictures(folder: pathlib.Path, problems: common.Problems) -> list[pathlib.Path]:
  """All pictures below; other files are problems."""
  good = []
  for path in common.files_under(folder, problems):
    if path.suffix.lower() in pictures.ENDINGS:
      good.append(path)
    else:
      known = ', '.join(pictures.ENDINGS)
      problems.add(path, f'is no picture that is read ({known}); convert it or move it away')
  return good


def _no_doubles(of: dict, kind: str, problems: common.Problems) -> None:
  """One reader's mask, or one image's label, is one file."""
  for paths in of.values():
    first: dict[str, pathlib.Path] = {}
    for path in paths:
      other = first.setdefault(path.stem, path)
      if other is not path:
        what = 'reader' if kind == 'masks' else 'image'
        problems.add(path, f'a second file of one {what}, beside {other.name}; move one away')


def _split(path: pathlib.Path, relative: pathlib.PurePath) -> str:
  """The split that the first folder names, if it names one. Raises UserError for nearly one."""
  if len(relative.parts) == 1:
    return ''
  top = relative.parts[0]
  split = SPLIT_NAMES.get(top, top)
  if split in base.SPLITS:
    return split
  plain = top.lower()
  if meant := LIKE_SPLITS.get(plain) or (plain if plain in (*base.SPLITS, *SPLIT_NAMES) else ''):
    raise UserError(
      f'{path}: is the folder {top} a split?\n'
      f'  call it {meant}, with its masks; or by another name if it is none'
    )
  return ''


def check_once(rows: list[Row]) -> None:
  """Raises UserError for an image that is listed twice, by whatever path, or a name given twice."""
  by_name: dict[str, Row] = {}
  by_file: dict[pathlib.Path, Row] = {}
  for row in rows:
    with reading(row.image, 'a picture'):
      real = row.image.resolve()
    other = by_name.setdefault(row.name, row), by_file.setdefault(real, row)
    for first in other:
      if first is not row:
        raise UserError(f'{row.image}: listed twice, or of one name with {first.image}')
    if len({*row.masks}) < len(row.masks):
      raise UserError(f'{row.image}: one of its masks is listed twice: {row.masks[0]}')
