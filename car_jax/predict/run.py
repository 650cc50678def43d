"""From files to predictions in a folder: what is complete is not done again.

OUT/settings.json     what they were made with; another run's do not go into the same folder
OUT/done/NAME.json    what is known of an item, written when its files are whole
OUT/predictions.csv   a row for each image or volume
OUT/index.html        the page
"""

import concurrent.futures
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

from car_jax import files, folders, lock, predictor, sharding, stopping
from car_jax import progress as lines
from car_jax.calibrate import files as calibrator_files
from car_jax.errors import UserError, writing
from car_jax.nn import windows as windows_of_net
from car_jax.predict import page, reading, rows
from car_jax.predict.reading import Content
from car_jax.predict.sources import Inputs, Item
from car_jax.predict.writing import Writer
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
    weights=files.checksum(model.crc),
    changes=[[*pair] for pair in changes],
    calibrator=None if model.calibrator is None else calibrator_files.digest(model.calibrator),
    range=options.range or model.info.range,
  )
  return json.loads(json.dumps(out))


def check(out: pathlib.Path) -> None:
  """Makes the folder. Raises UserError where it holds anything but predictions."""
  folders.check_replaceable(out, SETTINGS)
  out.mkdir(parents=True, exist_ok=True)


def begin(out: pathlib.Path, wanted: dict[str, Any], new: bool) -> None:
  """Writes the settings, or checks that what the folder holds was made with the same ones.

  A `range` may be added to none. new: deletes what it holds but for the lock, which this process
  has. Raises UserError.
  """
  path = out / SETTINGS
  for old in out.iterdir() if new else ():
    if old.is_dir() and not old.is_symlink():
      shutil.rmtree(old)
    elif old.name != lock.NAME:
      old.unlink()
  if path.exists():
    old = files.read_json(path, mend='--new predicts all again')
    free = {'model'} | ({'range'} if not old.get('range') else set())  # a run may move
    other = [k for k in wanted if k not in free and old.get(k) != wanted[k]]
    if other:
      k = other[0]
      differ = f'{k} {old.get(k)}, not {wanted[k]}'
      if k == 'weights':  # of which numbers say nothing
        differ = f'other weights: those of {old.get("model")}, not of {wanted["model"]}'
        differ += ' as it is now' * (old.get('model') == wanted['model'])
      raise UserError(
        f'{out} was made with {differ}\n  name another --out, or predict all again with --new'
      )
  with folders.whole(path) as part:
    part.write_text(json.dumps(wanted, indent=1) + '\n')


class Run:
  """One call of the command: `predict` the items of `inputs`, then `finish`.

  Raises UserError where the folder holds another file's predictions under an item's name.
  """

  def __init__(self, model: Predictor, inputs: Inputs, out: pathlib.Path, options: Options):
    self.model, self.inputs, self.out, self.options = model, inputs, out, options
    self.writer = Writer(out, model.info, options.kinds, model.single)
    self.problems = inputs.problems
    for part in out.rglob('*.part'):  # of a process that was killed while it wrote
      part.unlink(missing_ok=True)
    self._windows_named = False
    self.before = {item.name for item in inputs.items if self._record(item)}

  def predict(self) -> None:
    """All that is not complete. Raises KeyboardInterrupt once a signal asks to stop."""
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
    if record and record['place'] != str(item.place.absolute()):
      raise UserError(
        f'{self.out} holds {item.name} of {record["place"]}, not of {item.place}\n'
        '  name another --out, or predict all again with --new'
      )
    return record if record and record['source'] == signature(item) else None

  def _complete(self, path: pathlib.Path) -> dict[str, Any] | None:
    if not path.exists():
      return None
    keys = ('place', 'source', 'files', 'images')
    record = files.read_json(path, keys=keys, mend='--new predicts all again')
    return record if all((self.out / name).exists() for name in record['files']) else None

  def _earlier(self) -> Iterator[dict[str, Any]]:
    """What calls with other files left: of none of the items, nor of their files by other names."""
    names = {item.name for item in self.inputs.items}
    places = {str(item.place.absolute()) for item in self.inputs.items}
    for path in sorted((self.out / DONE).rglob('*.json')):
      name = path.relative_to(self.out / DONE).as_posix().removesuffix('.json')
      record = None if name in names else self._complete(path)
      if record and record['place'] not in places:
        yield record

  def finish(self, command: str) -> list[dict[str, Any]]:
    """Writes the table and the page of all that is complete, of earlier calls too -> its rows.

    Raises UserError, and writes neither, where there is nothing.
    """
    records = [record for item in self.inputs.items if (record := self._record(item))]
    records += self._earlier()
    every = [row for record in records for row in record['images']]
    if not every:
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


def signature(item: Item) -> int:
  """Changes with the files of an item."""
  about = [(str(p.absolute()), (s := p.stat()).st_size, s.st_mtime_ns) for p in item.paths]
  return files.checksum(about)
