"""car-jax generate look DIR: a page of a generated set, to find its bad images by eye.

Each image stands beside its original or its mask and its labels. A click strikes an image out; the
page then shows the lines to put into DIR/rejected_by_eye.txt, which it does not write itself.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import errors, files, folders, paths, pictures
from car_jax.data import labels
from car_jax.errors import UserError, exit_on_user_error, reading
from car_jax.generate import records, sets
from car_jax.generate.sets import ACCEPTED, STATUSES, STRUCK, Item
from car_jax.report import rendering
from car_jax.report.page import Card, Strip, Tile, render, select
from car_jax.report.table import Table, share, table

PAGE = 'look.html'
WIDTH = 240  # pixels of a picture on the page
BOX, DIM = (255, 176, 0), 0.3


def parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = errors.parser('generate look', __doc__)
  add = parser.add_argument
  add('folder', type=paths.local, help='a generated set, ours or in the released layout')
  add('--start', type=int, default=0, help='first index of each domain and object (default 0)')
  add('--stop', type=int, default=64, help='one more than the last index shown (default 64)')
  add('--page', type=paths.local, default=None, help=f'the page (default DIR/{PAGE})')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: Sequence[str]) -> int:
  args = parse(arguments)
  notes: dict[str, int] = {}
  count = lambda path, what: notes.update({what: notes.get(what, 0) + 1})
  items = sets.read(args.folder, note=count)
  shown = [item for item in items if args.start <= item.index < args.stop]
  if not shown:
    last = max(item.index for item in items)
    raise UserError(
      f'{args.folder} has no image from --start {args.start} to --stop {args.stop}\n'
      f'  its indices go up to {last}'
    )
  path = args.page or args.folder / PAGE
  folders.check_writable(path.parent)
  text = page(args.folder, items, shown, [f'{n:,} x {what}' for what, n in notes.items()])
  records.write(path, text.encode(errors='backslashreplace'))
  print('\n'.join(sets.acceptance(items)))
  if len(shown) < len(items):
    print(f'shown: {len(shown):,} of {len(items):,}; --start {args.stop} shows the next')
  print(f'page: {path}')
  return 0


def page(
  folder: pathlib.Path, items: Sequence[Item], shown: Sequence[Item], notes: Sequence[str]
) -> str:
  """The whole document: the counts of all `items`, pictures of those `shown`."""
  there = {item.status for item in shown}
  return render(
    'look.html.j2',
    kicker='Generated set',
    title=folder.resolve().name,
    facts=_facts(items, shown),
    counts=_counts(items),
    notes=notes,
    controls=[
      select('group', [item.group for item in shown], label='domain or object'),
      select('status', [s for s in STATUSES if s in there]),
    ],
    cards=map(card, shown),  # one in memory at a time
    struck=STRUCK,
    by_eye=str(folder / sets.BY_EYE),
  )


def _facts(items: Sequence[Item], shown: Sequence[Item]) -> dict[str, Any]:
  made = {item.record.get('generator', 'unknown') for item in items}
  return {
    'images': (f'{len(items):,}', f'{len(shown):,} shown'),
    'domains, objects': f'{len({i.group for i in items})}',
    'generator': ', '.join(sorted(map(str, made))),
    'scenes': f'{len({i.scene for i in items if i.scene}) or "–"}',
  }


def _counts(items: Sequence[Item]) -> Table:
  rows = [
    [group, share(of[ACCEPTED] / of.total()), *(f'{of[s]:,}' for s in STATUSES)]
    for group, of in sets.counts(items).items()
  ]
  return table('accepted', ['', 'share accepted', *STATUSES], rows)


def card(item: Item) -> Card:
  """An image with what belongs to it. Raises UserError for a picture that cannot be read."""
  about = [item.reason, *map(str, dict(item.record.get('prompts') or {}).values())]
  return Card(
    item.id,
    (Strip('', '', tuple(tiles_of(item))),),
    tag='' if item.status == ACCEPTED else item.status,
    note='; '.join(filter(None, about)),
    labels=dict(group=item.group, status=item.status),
  )


def tiles_of(item: Item) -> Iterator[Tile]:
  """What is shown of an image."""
  tile = lambda what, content, kind='image/jpeg': Tile(content, what, f'{what} of {item.id}', kind)
  image = colours(item.picture)
  yield tile('image', photograph(image))
  if 'original' in item.files:
    yield tile('original', photograph(colours(item.files['original'])))
  if 'refined' in item.files:
    yield tile('before refinement', photograph(colours(item.files['image'])))
  if 'mask' in item.files or 'box' in item.files:
    yield tile('mask', photograph(marked(image, item)))
  ids = ids_of(item.files['labels'])
  palette = np.asarray(labels.PALETTE[: labels.SCORED])
  drawn = rendering.class_map(
    rendering.small(labels.CITYSCAPES_TO_TRAIN_ID[ids], WIDTH, nearest=True), palette
  )
  yield tile('labels', rendering.png(drawn), 'image/png')


def marked(image: np.ndarray, item: Item) -> np.ndarray:
  """The picture, dim where its mask is not, with the frame of the box."""
  out = image.astype(np.float32)
  if 'mask' in item.files:
    mask = ids_of(item.files['mask'])
    if mask.shape != image.shape[:2]:
      raise UserError(f'{item.files["mask"]} has another size than {item.picture}')
    out[mask == 0] *= DIM
  if 'box' in item.files:
    row, column, size = box_of(item.files['box'])
    wide = max(1, image.shape[0] // 128)
    frame = np.zeros(image.shape[:2], bool)
    frame[row : row + size, column : column + size] = True
    frame[row + wide : row + size - wide, column + wide : column + size - wide] = False
    out[frame] = BOX
  return out.astype(np.uint8)


def box_of(path: pathlib.Path) -> tuple[int, int, int]:
  """Row, column and size of an N_pos.json. Raises UserError."""
  text = files.read_text(path)
  with reading(path, 'the box of an object'):
    (box,) = json.loads(text).values()
    row, column = box['pos_mask']
    values: Mapping[str, Any] = dict(row=row, column=column, size=box['size_mask'])
    if wrong := [k for k, v in values.items() if type(v) is not int or not 0 <= v < 2**16]:
      raise ValueError(f'{wrong[0]} is {values[wrong[0]]!r}')
    return row, column, box['size_mask']


def colours(path: pathlib.Path) -> np.ndarray:
  """uint8 [H, W, 3]. Raises UserError."""
  values = pictures.open_picture(path).shown
  if values.dtype != np.uint8:
    raise UserError(f'{path} has {values.dtype} values; expected 8 bits')
  return values if values.ndim == 3 else np.repeat(values[..., None], 3, 2)


def ids_of(path: pathlib.Path) -> np.ndarray:
  """uint8 [H, W]. Raises UserError."""
  values = pictures.open_picture(path).values
  if values.ndim != 2 or values.dtype.kind not in 'biu' or values.max(initial=0) > 255:
    raise UserError(f'{path} holds no 8-bit numbers [H, W]')
  return values.astype(np.uint8)


def photograph(image: np.ndarray) -> bytes:
  """uint8 [H, W, 3] as a small JPEG."""
  return rendering.jpeg(rendering.small(image, WIDTH))
