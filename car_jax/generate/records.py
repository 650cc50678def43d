"""How generated sets are written: image by image, so that what is there is not made again.

The layout is that of the released images of GenVal (arXiv 2312.09231):

OUT/DOMAIN/{leftImg8bit,gtFine,original}/val/CITY/DOMAIN_N_NAME_leftImg8bit.png, .._labelIds.png
OUT/with_positions/OBJECT/N.png, N_gt.png, N_pos.json  with the object, the scene's labels, the box
OUT/refined/OBJECT/N.png                               the same refined, where that is done
OUT/masks/OBJECT/N_mask.png or N_mask.txt              the object, or why its image is rejected

and, of ours alone:

OUT/with_positions/OBJECT/N_ood.png                    label ids with the object as 255
OUT/records/{style,ood}/GROUP/N.json                   what the image is; written last
OUT/index.jsonl                                        all records, a line each, sorted
OUT/rejected_by_eye.txt                                the user's list of bad ones, see sets.py

A group is a domain or an object. Nothing in any file depends on when or in which order images were
made, so that 0 to 8 at once and 4 to 8 before 0 to 4 are the same bytes.

Letters: H x W pixels.
"""

import contextlib
import dataclasses
import io
import json
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from car_jax import files, folders
from car_jax.errors import UserError, writing
from car_jax.generate.boxes import Box

Kind = Literal['style', 'ood']
KINDS: tuple[Kind, ...] = ('style', 'ood')
RECORDS, INDEX = 'records', 'index.jsonl'
POSITIONS, REFINED, MASKS = 'with_positions', 'refined', 'masks'
TAKEN = (RECORDS, POSITIONS, REFINED, MASKS)  # names that no domain can have
GROUPS = {'style': 'domain', 'ood': 'object'}
OBJECT_ID = 255
"""The label id of the object's pixels in N_ood.png."""
ACCEPTED, REJECTED = 'accepted', 'rejected'
KEYS = ('id', 'index', 'seed', 'generator', 'scene', 'files', 'status', 'reason', 'settings')
SECONDS = 2  # in which a file that is being written is touched
AGAIN = 'delete it: its image is made again'
Files = dict[str, str]  # what it is -> its place below OUT


@dataclasses.dataclass(frozen=True)
class StyleImage:
  """A scene repainted: image and original uint8 [H, W, 3], labels uint8 [H, W], label ids.

  scene: CITY/NAME, as Cityscapes calls it.
  """

  scene: str
  image: np.ndarray
  labels: np.ndarray
  original: np.ndarray
  prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ObjectImage:
  """An object in a scene: image, refined uint8 [H, W, 3]; labels uint8 [H, W], the scene's own ids.

  mask: bool [H, W], the object; None where it is rejected, and then `reason` says why. mask_score:
  how sure the method is of it, where it says so.
  """

  scene: str
  image: np.ndarray
  labels: np.ndarray
  box: Box
  mask_method: str
  mask: np.ndarray | None = None
  mask_score: float | None = None
  reason: str = ''
  refined: np.ndarray | None = None
  prompts: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Writer:
  """Adds images to the set in a folder.

  generator, seed and settings (what JSON can hold) decide what every image is; groups: what else
  does for those of a domain or an object, such as its prompt. Raises UserError where images that
  are there were made with others, for a name that no folder can have, and for a folder that cannot
  be written.
  """

  def __init__(
    self,
    out: str | pathlib.Path,
    kind: Kind,
    *,
    generator: str,
    seed: int,
    settings: Mapping[str, Any],
    groups: Mapping[str, Mapping[str, Any]],
  ):
    self.out, self.kind = pathlib.Path(out), kind
    self.about = dict(generator=generator, seed=seed)
    for group in groups:
      check_name(GROUPS[kind], group)
    plain = lambda x: json.loads(json.dumps(x))  # a tuple is a list in the records
    self.settings = {g: plain({**settings, **more}) for g, more in groups.items()}
    folders.check_writable(self.out)
    self._done: set[tuple[str, int]] = set()
    for record in records(self.out, kind):
      group = record[GROUPS[kind]]
      self._check(record, self.settings.get(group, plain(dict(settings))), group in groups)
      if all((self.out / name).is_file() for name in record['files'].values()):
        self._done.add((group, record['index']))

  def _check(self, record: Mapping[str, Any], wanted: Mapping[str, Any], same_keys: bool) -> None:
    """Raises UserError where a record was made with other settings, and says which."""
    was = {k: v for k, v in record['settings'].items() if same_keys or k in wanted}
    ours, theirs = {**self.about, **wanted}, {k: record[k] for k in self.about} | was
    if differ := [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]:
      text = lambda v: json.dumps(v) if v is not None else 'none'
      lines = [f'  {k}: {text(theirs.get(k))} there, {text(ours.get(k))} now' for k in differ]
      raise UserError(
        f'{self.out} has images of other settings, such as {record["id"]}\n'
        + '\n'.join(lines)
        + '\n  name a new folder with --out, or the same settings'
      )

  def missing(self, group: str, indices: Iterable[int]) -> list[int]:
    """Those of the indices whose images are not there, or not whole."""
    return [i for i in indices if (group, i) not in self._done]

  def add(self, group: str, index: int, made: StyleImage | ObjectImage) -> dict[str, Any]:
    """Writes an image's files, then its record, which is returned. Raises OSError with the path."""
    more: dict[str, Any] = {}
    if isinstance(made, StyleImage):
      contents = _style_contents(made)
    else:
      contents, more = _object_contents(made, index)
    places = places_of(self.kind, group, index, made.scene)
    for what, content in contents.items():
      write(self.out / places[what], content)
    for left in {'mask', 'reason', 'ood', 'refined'}.intersection(places) - {*contents}:
      (self.out / places[left]).unlink(missing_ok=True)  # of another outcome that was cut short
    record = dict(id=id_of(self.kind, group, index, made.scene), index=index) | self.about
    record |= {'scene': made.scene, GROUPS[self.kind]: group, 'prompts': dict(made.prompts)} | more
    record.setdefault('status', ACCEPTED)
    record.setdefault('reason', '')
    record |= dict(files={k: places[k] for k in contents}, settings=self.settings[group])
    path = record_path(self.out, self.kind, group, index)
    write(path, (json.dumps(record, indent=1) + '\n').encode())
    self._done.add((group, index))
    return record


def _style_contents(made: StyleImage) -> dict[str, bytes]:
  arrays = dict(image=made.image, labels=made.labels, original=made.original)
  return {what: png(array) for what, array in arrays.items()}


def _object_contents(made: ObjectImage, index: int) -> tuple[dict[str, bytes], dict[str, Any]]:
  """The files of an image with an object, and what its record says besides."""
  box = made.box
  contents = {'image': png(made.image), 'labels': png(made.labels)}
  contents['box'] = box_file(f'{index}.png', box)
  contents |= {} if made.refined is None else {'refined': png(made.refined)}
  more: dict[str, Any] = dict(box=dict(row=box.row, column=box.column, size=box.size))
  more |= dict(mask_method=made.mask_method, mask_score=made.mask_score, mask_area=None)
  more |= dict(status=REJECTED, reason=made.reason)
  if made.mask is None:
    if not made.reason:
      raise ValueError('an image without a mask needs the reason')
    contents['reason'] = f'{made.reason}\n'.encode()
  else:
    mask = np.asarray(made.mask, bool)
    contents['mask'] = png(np.uint8(255) * mask)
    contents['ood'] = png(np.where(mask, np.uint8(OBJECT_ID), made.labels))
    more |= dict(mask_area=int(mask.sum()), status=ACCEPTED, reason='')
  return contents, more


def box_file(name: str, box: Box) -> bytes:
  """The content of N_pos.json, as it is released."""
  return json.dumps({name: {'pos_mask': [box.row, box.column], 'size_mask': box.size}}).encode()


def places_of(kind: Kind, group: str, index: int, scene: str) -> Files:
  """Where the files of an image lie below OUT, whether or not they are there."""
  if kind == 'style':
    city, _, name = scene.partition('/')
    of = lambda part, end: f'{group}/{part}/val/{city}/{group}_{index}_{name}_{end}.png'
    return dict(
      image=of('leftImg8bit', 'leftImg8bit'),
      labels=of('gtFine', 'labelIds'),
      original=of('original', 'leftImg8bit'),
    )
  stem = f'{POSITIONS}/{group}/{index}'
  return dict(
    image=f'{stem}.png',
    labels=f'{stem}_gt.png',
    box=f'{stem}_pos.json',
    ood=f'{stem}_ood.png',
    refined=f'{REFINED}/{group}/{index}.png',
    mask=f'{MASKS}/{group}/{index}_mask.png',
    reason=f'{MASKS}/{group}/{index}_mask.txt',
  )


def id_of(kind: Kind, group: str, index: int, scene: str) -> str:
  """What an image is called in rejected_by_eye.txt and in prepared data."""
  return f'{group}/{index}_{scene.partition("/")[2]}' if kind == 'style' else f'{group}/{index}'


def record_path(out: pathlib.Path, kind: Kind, group: str, index: int) -> pathlib.Path:
  return out / RECORDS / kind / group / f'{index}.json'


def records(out: pathlib.Path, kind: Kind) -> Iterator[dict[str, Any]]:
  """What `Writer.add` wrote, sorted by group and index. Raises UserError for a damaged record."""
  paths = [p for p in (out / RECORDS / kind).glob('*/*.json') if p.stem.isdecimal()]
  for path in sorted(paths, key=lambda p: (p.parent.name, int(p.stem))):
    record = files.read_json(path, keys=(*KEYS, GROUPS[kind]), mend=AGAIN)
    group, index, scene = path.parent.name, int(path.stem), str(record['scene'])
    places = places_of(kind, group, index, scene)
    known = record['files'] == {k: places.get(k) for k in record['files']}
    same = (record['id'], record[GROUPS[kind]]) == (id_of(kind, group, index, scene), group)
    if not (known and same and record['index'] == index and '..' not in scene.split('/')):
      raise UserError(f'{path} is the record of another image\n  {AGAIN}')
    yield record


def check_name(what: str, name: str) -> None:
  """Raises UserError unless a folder can be called so, of any system."""
  strange = [c for c in name if c in '/\\:*?"<>|' or not c.isprintable()]
  if strange or not name or name != name.strip(' .') or len(name.encode()) > 100:
    why = f'it has {strange[0]!a}' if strange else '1 to 100 bytes, no blank or dot at an end'
    raise UserError(f'{what} {name!a} cannot be the name of a folder\n  {why}')
  if name in TAKEN:
    raise UserError(f'{what} {name!r}: a folder of this name has another use\n  rename it')


def png(array: np.ndarray) -> bytes:
  """uint8 [H, W] or [H, W, 3] as the bytes of a PNG, the same for the same array."""
  from PIL import Image

  out = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(array)).save(out, 'PNG')
  return out.getvalue()


def remove_parts(out: pathlib.Path) -> None:
  """Removes the half files of killed runs: of no process here, and untouched for SECONDS."""
  for path in out.rglob('*.part'):
    pid = path.name.split('.')[-2]
    if pid.isdecimal() and not folders.runs(int(pid)):
      with contextlib.suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime > SECONDS:
          path.unlink()


def write(path: pathlib.Path, content: bytes) -> None:
  """A whole file or none. Raises OSError with the path."""
  with writing(path), folders.whole(path) as part:
    part.write_bytes(content)
