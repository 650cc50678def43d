"""Which images are in files and folders, under which names; nothing is left out unsaid."""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from car_jax import files, pictures
from car_jax.errors import UserError, reading
from car_jax.predict import volumes
from car_jax.problems import Problems

DICOM = ('.dcm', '.dicom', '.ima')
MAGIC = b'DICM'  # at byte 128 of a DICOM file, whatever its name
LABELS = ('masks', 'labels')  # folders that data of one's own have beside images/
Series = dict[tuple[pathlib.Path, str], dict[pathlib.Path, volumes.Slice]]
EXPECTED = 'no picture, .npy array, NIfTI or DICOM'
LONGEST = 220  # bytes of a name, of the 255 of file systems: '-uncertainty.jpg.PID.part' is added


@dataclasses.dataclass(frozen=True)
class Item:
  """A picture, the pages of a TIFF, an array, or a volume, in one file or in those of a series.

  name: of what is written, unlike any other's. kind: picture, array, nifti or dicom. count: of its
  images or slices.
  """

  name: str
  paths: tuple[pathlib.Path, ...]
  kind: str
  count: int = 1

  @property
  def volume(self) -> bool:
    return self.kind in ('nifti', 'dicom')

  @property
  def place(self) -> pathlib.Path:
    """Its file, or the folder of a series."""
    return self.paths[0] if len(self.paths) == 1 else self.paths[0].parent

  @property
  def names(self) -> list[str]:
    """Of its images; a volume is one."""
    if self.volume or self.count == 1:
      return [self.name]
    digits = len(str(self.count))
    return [f'{self.name}_{k:0{digits}}' for k in range(1, self.count + 1)]


@dataclasses.dataclass
class Inputs:
  """items in the order of their paths. problems: lines of files that cannot be read, and notes."""

  items: list[Item]
  problems: Problems


def find(inputs: Sequence[str], out: pathlib.Path | None = None) -> Inputs:
  """What is in files and folders, at any depth, but in `out`.

  Hidden files and those of no known kind are noted; one of a known kind that cannot be read, or
  that was named itself, is a problem; with `out`, so is one whose name is too long for files there.
  Raises UserError where nothing is there that can be read.
  """
  problems, items = Problems(), []
  seen: set[str] = set()
  for given in inputs:
    place = pathlib.Path(given)
    if not os.path.lexists(place):
      raise UserError(f'no file or folder {place}')
    whole = place.is_dir()
    paths = [*_inside(place, out, problems)] if whole else [place]
    paths = [path for path in paths if _is_new(path, seen, problems)]
    items += _items(place if whole else place.parent, paths, problems, named=not whole)
  items = _named_apart(items, problems)
  if out:
    items = [item for item in items if _is_short(item, problems)]
  if not items:
    lines = ''.join(f'\n{line}' for line in (*problems.lines, *problems.noted()))
    what = 'nothing can be read' if problems.lines else f'{EXPECTED} is there'
    raise UserError(f'{", ".join(inputs)}: nothing to predict; {what}{lines}')
  return Inputs(items, problems)


def _is_new(path: pathlib.Path, seen: set[str], problems: Problems) -> bool:
  """Whether a file has a name that can be written, and was not there before."""
  real = os.path.realpath(path)
  if any('\ud800' <= c <= '\udfff' for c in str(path)):
    problems.add(ascii(str(path)), 'is not called in UTF-8; rename it')
  elif real in seen:
    problems.note(path, 'named twice, predicted once')
  else:
    seen.add(real)
    return True
  return False


def _is_short(item: Item, problems: Problems) -> bool:
  """Whether files can be called after it."""
  most = max((len(os.fsencode(name.rpartition('/')[2])) for name in item.names), default=0)
  if most > LONGEST:
    what = f'its name is too long to call files after it ({most} bytes, of {LONGEST}); rename it'
    problems.add(item.place, what)
  return most <= LONGEST


def kind_of(path: pathlib.Path) -> str:
  """By its ending, and DICOM by its bytes; '' for none that is read."""
  name = path.name.lower()
  if name.endswith(volumes.NIFTI):
    return 'nifti'
  for kind, endings in {'picture': pictures.ENDINGS, 'array': ('.npy',), 'dicom': DICOM}.items():
    if name.endswith(endings):
      return kind
  with contextlib.suppress(OSError):
    if path.is_file():
      with path.open('rb') as file:
        return 'dicom' if file.read(132)[128:] == MAGIC else ''
  return ''


def item_of(path: pathlib.Path) -> Item:
  """A single file, or the folder of one DICOM series. Raises UserError."""
  if path.is_dir():
    return _series_of(path)
  files.check_regular(path)
  kind = kind_of(path)
  if not kind:
    raise UserError(f'{path} is {EXPECTED}')
  return Item(_stem(path.name), (path,), kind, _count(path, kind))


def _series_of(folder: pathlib.Path) -> Item:
  inputs = find([str(folder)])
  if inputs.problems.lines:
    raise UserError(f'{folder} cannot be read:\n' + '\n'.join(inputs.problems.lines))
  if [item.kind for item in inputs.items] != ['dicom']:
    raise UserError(
      f'{folder} is a folder, not of one DICOM series; it holds {len(inputs.items):,} images or '
      f'volumes\n  name its files, or predict all: car-jax predict RUN {folder} --out OUT'
    )
  return inputs.items[0]


def _inside(
  folder: pathlib.Path, out: pathlib.Path | None, problems: Problems
) -> Iterator[pathlib.Path]:
  def failed(error: UserError) -> None:
    with problems.collecting():
      raise error

  own = out.resolve() if out else None
  for path in files.walk(folder, passed=problems.note, failed=failed):
    if path.is_dir():
      continue
    if own and own in path.resolve().parents:
      problems.note(path, 'in the folder of predictions, passed over')
    elif labels := _labels_beside_images(path, folder):
      problems.note(labels, 'beside images/, so labels and no images; name it to predict it')
    elif any(part.startswith('.') for part in path.relative_to(folder).parts):
      problems.note(path, 'hidden, passed over')
    else:
      yield path


def _labels_beside_images(path: pathlib.Path, root: pathlib.Path) -> pathlib.Path | None:
  """The folder masks/ or labels/ below `root` that a file lies in, beside images/, if it does."""
  within = itertools.takewhile(lambda place: place != root, path.parents)
  labels = (place for place in within if place.name in LABELS)
  return next((place for place in labels if (place.parent / 'images').is_dir()), None)


def _items(
  root: pathlib.Path, paths: Sequence[pathlib.Path], problems: Problems, named: bool
) -> list[Item]:
  """Items of the files of a folder; the slices of a DICOM series in one folder are one."""
  out: list[Item] = []
  series: Series = collections.defaultdict(dict)
  for path in paths:
    kind = kind_of(path)
    if not kind:
      (problems.add if named else problems.note)(path, f'{EXPECTED}; not read')
      continue
    with problems.collecting():
      if kind == 'dicom':
        header = volumes.dicom_header(path)
        if 'Rows' not in header:
          problems.note(path, 'DICOM without an image, such as an index; not read')
          continue
        one = volumes.slice_of(path, header)
        series[path.parent, one.series][path] = one
      else:
        name = _stem(path.relative_to(root).as_posix())
        out.append(Item(name, (path,), kind, _count(path, kind)))
  together = collections.Counter(folder for folder, _ in series)
  for (folder, uid), slices in series.items():
    with problems.collecting():
      ordered = tuple(volumes.in_order(slices))
      name = _series_name(root, folder, ordered, uid if together[folder] > 1 else '')
      out.append(Item(name, ordered, 'dicom', len(ordered)))
  return sorted(out, key=lambda item: item.paths[0])


def _series_name(
  root: pathlib.Path, folder: pathlib.Path, paths: Sequence[pathlib.Path], uid: str
) -> str:
  """A series is called as its folder, with its UID where there are several; one file as itself."""
  if len(paths) == 1:
    return _stem(paths[0].relative_to(root).as_posix())
  name = folder.relative_to(root).as_posix()
  name = folder.resolve().name if name == '.' else name
  return f'{name}_{uid}' if uid else name


def _stem(name: str) -> str:
  """Without the ending of a known kind."""
  known = (*volumes.NIFTI, *pictures.ENDINGS, *DICOM, '.npy')
  ending = max((e for e in known if name.lower().endswith(e)), key=len, default='')
  return name[: len(name) - len(ending)] or name


def _count(path: pathlib.Path, kind: str) -> int:
  """Images or slices in a file, from its header. Raises UserError."""
  if kind == 'nifti':
    return volumes.slices_of(path)
  files.check_regular(path)
  if kind == 'array':
    with reading(path, 'an .npy array'):
      shape = np.load(path, mmap_mode='r').shape
    return shape[0] if len(shape) == 4 else 1
  return pictures.pages(path) if path.suffix.lower() in ('.tif', '.tiff') else 1


def _named_apart(items: Sequence[Item], problems: Problems) -> list[Item]:
  """No two items, nor images of theirs, have one name; that such were renamed is noted."""
  often = collections.Counter(item.name.casefold() for item in items)
  taken: set[str] = set()
  out = []
  for item in items:
    name = item.name
    if often[name.casefold()] > 1:
      name += '_' + ''.join(item.paths[0].suffixes[-2:]).lstrip('.').replace('.', '_').lower()
    base, k = name, 2
    while taken & {n.casefold() for n in dataclasses.replace(item, name=name).names}:
      name, k = f'{base}_{k}', k + 1
    if name != item.name:
      problems.note(f'{item.paths[0]} as {name}', f'another is called {item.name} too; written')
    item = dataclasses.replace(item, name=name)
    taken |= {n.casefold() for n in item.names}
    out.append(item)
  return out
