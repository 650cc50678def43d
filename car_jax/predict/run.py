"""From files to predictions in a folder: what is complete is not done again.

OUT/settings.json     what they were made with; another run's do not go into the same folder
OUT/done/NAME.json    what is known of an item, written when its files are whole
OUT/predictions.csv   a row for each image or volume
OUT/index.html        the page
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from car_jax import files, folders, predictor, sharding, stopping
from car_jax import progress as lines
from car_jax.calibrate import files as calibrator_files
from car_jax.errors import UserError, writing
from car_jax.nn import windows as windows_of_net
from car_jax.predict import page, reading, rows
from car_jax.predict.reading import Content
from car_jax.predict.sources import Inputs, Item
from car_jax.predict.writing import FOLDERS, KINDS, Writer
from car_jax.predictor import WHOLE_OR_WINDOWS, Predictor, Windows

SETTINGS, DONE, CSV, PAGE = 'settings.json', 'done', 'predictions.csv', 'index.html'
FORMAT = 'car_jax predictions 1'
WAITING = 1 << 26  # pixels of images that wait for others of their size
WRITERS = 4


@dataclasses.dataclass(frozen=True)
class Options:
  """What predictions follow from beside the model; kinds: what is saved, see predict/writing.py."""

  samples: int
  seed: int
  kinds: tuple[str, ...]
  range: str = ''
  windows: Windows = WHOLE_OR_WINDOWS


@dataclasses.dataclass
class Target:
  """An item whose images are being predicted; rows: Outputs of those that are, by their number."""

  item: Item
  content: Content
  rows: dict[int, Any] = dataclasses.field(default_factory=dict)

  @property
  def complete(self) -> bool:
    return len(self.rows) == len(self.content.images)


Part = list[tuple[Target, int]]  # images of one size, by their number in their item


def settings(
  model: Predictor, options: Options, changes: Sequence[tuple[str, str]] = ()
) -> dict[str, Any]:
  """What must be the same for predictions to lie in one folder. changes: as of predictor.load."""
  out = dataclasses.asdict(options) | dict(
    format=FORMAT,
    model=str(model.path),
    single=model.single,
    weights=files.checksum(model.crc),
    changes=[[*pair] for pair in changes],
    calibrator=None if model.calibrator is None else calibrator_files.digest(model.calibrator),
    range=options.range or model.info.range,
  )
  return json.loads(json.dumps(out))


def typed(of: dict[str, Any], single: bool) -> dict[str, str]:
  """Settings as options that are typed, '' without; alike where they mean the same.

  single: of a model with one answer, which has one sample however many are asked for.
  """
  apart = ('model', 'single', 'weights', 'format', 'kinds', 'windows', 'changes')
  out = {k: v for k, v in of.items() if k not in apart}
  out['save'] = ','.join(kind for kind in KINDS if kind in of.get('kinds', ()))
  for k, side in of.get('windows', {}).items():  # 16 is 16,16
    sides = () if side is None else windows_of_net.sides(side)
    out[k] = ','.join(dict.fromkeys(map(str, sides)))
  if single:
    out['samples'] = 1
  changes = sorted(dict(of.get('changes', ())).items())
  texts = {f'--{k}': '' if v in (None, '') else f'--{k} {v}' for k, v in out.items()}
  return texts | {'--config': ' '.join(f'--config.{k}={v}' for k, v in changes)}


def check(out: pathlib.Path) -> None:
  """Makes the folder. Raises UserError where it holds anything but predictions."""
  folders.check_replaceable(out, SETTINGS, FORMAT.rpartition(' ')[0])  # of any version
  out.mkdir(parents=True, exist_ok=True)


def begin(out: pathlib.Path, wanted: dict[str, Any], new: bool) -> None:
  """Writes the settings, or checks that what the folder holds was made with the same ones.

  A `range` may be added to none. new: deletes the predictions that it holds, and nothing else; so
  it is where none is complete. Raises UserError.
  """
  path = out / SETTINGS
  if new or not ((out / CSV).exists() or any((out / DONE).rglob('*.json'))):
    for place in (out / name for name in (DONE, *FOLDERS, CSV, PAGE)):
      if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
      else:
        place.unlink(missing_ok=True)
  else:
    _check_same(out, files.read_json(path, mend='--new predicts all again'), wanted)
  with folders.whole(path) as part:  # the old ones until then: they say whose the folder is
    part.write_text(json.dumps(wanted, indent=1) + '\n')


def _check_same(out: pathlib.Path, old: dict[str, Any], wanted: dict[str, Any]) -> None:
  """Raises UserError where the folder was made with other settings. A run may move."""
  had, has = (typed(of, wanted.get('single', False)) for of in (old, wanted))
  had = {k: had.get(k, '') for k in has}
  other = [k for k in has if had[k] != has[k] and (had[k] or k != '--range')]
  if old.get('weights') != wanted['weights']:  # of which numbers say nothing
    differ = f'other weights: those of {old.get("model")}, not of {wanted["model"]}'
    differ += ' as it is now' * (old.get('model') == wanted['model'])
  elif old.get('format') != wanted['format']:
    differ = f'another version of car-jax: {old.get("format")}, not {wanted["format"]}'
  elif other:
    differ = ', not '.join(' '.join(of[k] or f'no {k}' for k in other) for of in (had, has))
  else:
    return
  raise UserError(
    f'{out} was made with {differ}\n  name another --out, or predict all again with --new'
  )


class Run:
  """One call of the command: `predict` the items of `inputs`, then `finish`.

  Raises UserError where the folder holds another file's predictions under an item's name.
  """

  def __init__(self, model: Predictor, inputs: Inputs, out: pathlib.Path, options: Options):
    self.model, self.inputs, self.out, self.options = model, inputs, out, options
    self.writer = Writer(out, model.info, options.kinds, model.single)
    self.problems = inputs.problems
    for part in filter(pathlib.Path.is_file, _parts(out)):
      part.unlink(missing_ok=True)
    self._windows_named = False
    self._places = {str(item.place.absolute()) for item in inputs.items}
    self.before = {item.name for item in inputs.items if self._record(item)}

  def predict(self) -> None:
    """All that is not complete. Raises KeyboardInterrupt once a signal asks to stop."""
    self._remove_superseded()
    todo = [item for item in self.inputs.items if item.name not in self.before]
    if not todo:
      return
    self._progress = lines.line(sum(item.count for item in todo))
    waiting: tuple[Part, Any] | None = None
    with (
      stopping.listening(),
      writing(self.out),
      concurrent.futures.ThreadPoolExecutor(WRITERS) as self._pool,
    ):
      for part in self._parts(todo):
        outputs = self._batch(part)
        if waiting is not None:
          self._take(*waiting)
        waiting = part, outputs
      if waiting is not None:
        self._take(*waiting)

  def _parts(self, items: Sequence[Item]) -> Iterator[Part]:
    """Images of one size at a time, as many as are predicted together, or the last of a size."""
    pending: dict[tuple[int, int], Part] = {}
    for item in items:
      stopping.check()
      content = self._read(item)
      if content is None:
        self._progress(item.count)
        continue
      target = Target(item, content)
      for k, image in enumerate(content.images):
        shape = image.shape[:2]
        pending.setdefault(shape, []).append((target, k))
        if len(pending[shape]) >= self.model.rows(shape):
          yield pending.pop(shape)
      while sum(math.prod(s) * len(part) for s, part in pending.items()) > WAITING:
        yield pending.pop(max(pending, key=lambda s: math.prod(s) * len(pending[s])))
    yield from pending.values()

  def _read(self, item: Item) -> Content | None:
    with self.problems.collecting():
      return reading.read(item, self.options.range, self.model.info, self.problems)
    return None

  def unread(self) -> list[str]:
    """What is wrong with each file that was not read."""
    return self.problems.grouped()

  def _batch(self, part: Part) -> Any:
    o = self.options
    images = [target.content.images[k] for target, k in part]
    keys = [target.content.keys[k] for target, k in part]
    self._name_windows(part[0][0].item, images[0].shape[:2])
    return self.model.batch(images, keys, o.samples, o.seed, o.windows)

  def _name_windows(self, item: Item, shape: tuple[int, int]) -> None:
    """A line, once, where an image goes by windows that nobody asked for."""
    windows = self.options.windows.of(self.model.seen(shape), self.model)
    if self._windows_named or self.options.windows.crop is not None or not windows.crop:
      return
    self._windows_named = True
    (h, w), (y, x) = (windows_of_net.sides(side or 0) for side in (windows.crop, windows.stride))
    sharding.say(
      f'{item.paths[0]} and others of more than {predictor.MOST_WHOLE:,} pixels go by windows of '
      f'{w}x{h}, {x} and {y} apart (--crop, --stride; --crop 0 for whole images)',
      sys.stderr,
    )

  def _take(self, part: Part, outputs: Any) -> None:
    """Fetches a batch and writes the items that are complete with it."""
    stopping.check()
    if 'probabilities' not in self.options.kinds:
      outputs = outputs.replace(probabilities=outputs.probabilities[..., :0])
    fetched = jax.device_get(outputs)
    for row, (target, k) in enumerate(part):
      target.rows[k] = jax.tree.map(lambda x, row=row: x[row], fetched)
    complete = {id(target): target for target, _ in part if target.complete}
    for _ in self._pool.map(self._write, complete.values()):
      pass
    self._progress(len(part))

  def _write(self, target: Target) -> None:
    item, content, info = target.item, target.content, self.model.info
    every = [target.rows[k] for k in range(len(content.images))]
    target.rows.clear()
    single = self.model.single
    key = 'entropy' if single else 'mutual_information'
    images, made = [], []
    file = str(item.place)
    if content.volume is not None:
      worst = int(np.argmax([getattr(x, key).mean() for x in every]))
      chosen = content.images[worst], every[worst]
      whole = content.arranged(iter(every))
      made += self.writer.volume(item.name, whole, content.volume)
      entry = rows.row(item.name, file, whole, info, content.volume, single)
      images.append(entry | {'slice': [worst + 1, len(every)]})
      made += self.writer.shown(item.name, *chosen, key)
    else:
      for name, image, out in zip(item.names, content.images, every, strict=True):
        made += self.writer.picture(name, out)
        images.append(rows.row(name, file, out, info, None, single))
        made += self.writer.shown(name, image, out, key)
    of = dict(place=str(item.place.absolute()), source=signature(item))
    record = of | dict(files=made, images=images)
    with folders.whole(self.out / DONE / f'{item.name}.json') as part:
      part.write_text(json.dumps(record))

  def _record(self, item: Item) -> dict[str, Any] | None:
    """What was written of an item as it is now, if all of it is there."""
    record = self._complete(self.out / DONE / f'{item.name}.json')
    place = str(item.place.absolute())
    if record and record['place'] != place and record['place'] not in self._places:
      raise UserError(
        f'{self.out} holds {item.name} of {record["place"]}, not of {item.place}\n'
        '  name another --out, or predict all again with --new'
      )
    return record if record and record['source'] == signature(item) else None

  def _complete(self, path: pathlib.Path) -> dict[str, Any] | None:
    record = _stored(path) if path.exists() else None
    return record if record and all((self.out / x).exists() for x in record['files']) else None

  def _done(self) -> list[pathlib.Path]:
    """Every record, of this call's items or not."""
    return [path for path in sorted((self.out / DONE).rglob('*.json')) if path.is_file()]

  def _earlier(self) -> list[pathlib.Path]:
    """What calls with other files left: of none of the items, nor of their files by other names."""
    own = {self.out / DONE / f'{item.name}.json' for item in self.inputs.items}
    others = (path for path in self._done() if path not in own)
    return [path for path in others if _stored(path)['place'] not in self._places]

  def _remove_superseded(self) -> None:
    """Deletes what was written of the items as they were: by other names, of other pages or bytes.

    Whoever reads a folder of predictions takes all that it holds. What a record of now has, too,
    stays; a record goes after its files, so that a kill leaves none that no record has.
    """
    current = {self.out / DONE / f'{name}.json' for name in self.before} | {*self._earlier()}
    old = [path for path in self._done() if path not in current]
    kept = {name for path in current if old for name in _stored(path)['files']}
    for path in old:
      for file in (self.out / name for name in {*_stored(path)['files']} - kept):
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others lie there
          file.parent.rmdir()
      path.unlink()

  def finish(self, command: str) -> list[dict[str, Any]]:
    """Writes the table and the page of all that is complete, of earlier calls too -> its rows.

    Raises UserError, and leaves neither, where there is nothing.
    """
    records = [record for item in self.inputs.items if (record := self._record(item))]
    records += filter(None, map(self._complete, self._earlier()))
    every = [row for record in records for row in record['images']]
    if not every:
      for name in (CSV, PAGE):  # of predictions that were superseded
        (self.out / name).unlink(missing_ok=True)
      lines = '\n'.join([*self.unread(), *self.problems.noted()])
      raise UserError(f'nothing was predicted; no input can be read:\n{lines}')
    with folders.whole(self.out / CSV) as part:
      part.write_text(rows.as_csv(every, self.model.info), encoding='utf-8')
    text = page.page(
      self.model, every, self.options.samples, self.unread(), self.problems.noted(), command
    )
    with folders.whole(self.out / PAGE) as part:
      part.write_text(text, errors='backslashreplace')
    return every


def _parts(out: pathlib.Path) -> list[pathlib.Path]:
  """What processes left that were killed while they wrote; not what others call so."""
  inside = [path for name in (DONE, *FOLDERS) for path in (out / name).rglob('*.part')]
  return inside + [path for name in (SETTINGS, CSV, PAGE) for path in out.glob(f'{name}.*.part')]


def _stored(path: pathlib.Path) -> dict[str, Any]:
  """A record. Raises UserError."""
  keys = ('place', 'source', 'files', 'images')
  return files.read_json(path, keys=keys, mend='--new predicts all again')


def signature(item: Item) -> int:
  """Changes with the files of an item."""
  about = [(str(p.absolute()), (s := p.stat()).st_size, s.st_mtime_ns) for p in item.paths]
  return files.checksum(about)
