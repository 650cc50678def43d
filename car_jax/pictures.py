"""One way to read a picture: images, masks, label maps, of any depth, whole or not at all.

A decoder fills with grey what is missing of a file, and passes over flipped bits and low bytes.
Here a PNG's checksums, lengths and pixel count are verified, the depth is that of the file's own
header, and a file of several pages is refused unless all of them are wanted. Letters: H x W
pixels, as the picture is seen, that is, turned as its own EXIF tag says.
"""

import contextlib
import dataclasses
import io
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from car_jax import files
from car_jax.errors import reading

ENDINGS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.gif')
EXACT = ('.png', '.bmp', '.tif', '.tiff', '.gif')  # those of whose numbers nothing is lost
MOST_PIXELS = 1 << 28
MOST_PAGES = 1 << 12
SIGNATURE = b'\x89PNG\r\n\x1a\n'
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's colour types
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
ADAM7 += [(0, 1, 1, 2)]


@dataclasses.dataclass(frozen=True)
class Picture:
  """Numbers as the file stores them.

  values: [H, W] or [H, W, 3], of any integer type or float32; indices where the file has a palette.
  palette: its colours uint8 [N, 3]. alpha: [H, W], where the file has it.
  """

  values: np.ndarray
  palette: np.ndarray | None = None
  alpha: np.ndarray | None = None

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    return np.array(self.values, dtype, copy=copy)

  @property
  def deep(self) -> bool:
    """More than 8 bits a channel."""
    return self.values.dtype not in (np.dtype(bool), np.dtype(np.uint8))

  @property
  def shown(self) -> np.ndarray:
    """The values with the palette's colours: [H, W] or [H, W, 3]."""
    return self.values if self.palette is None else self.palette[self.values]


def open_picture(path: str | pathlib.Path) -> Picture:
  """Decodes a whole file. Raises UserError, by path: missing, damaged, several pages, too large."""
  (picture,) = _opened(path, most=1)
  return picture


def open_pages(path: str | pathlib.Path) -> list[Picture]:
  """Every page of a TIFF, in their order; one picture of other kinds. Raises as `open_picture`."""
  return _opened(path, most=MOST_PAGES)


def pages(path: str | pathlib.Path) -> int:
  """How many pages a picture's header tells, 1 where it cannot be known. Nothing is decoded."""
  from PIL import Image

  with contextlib.suppress(Exception), Image.open(path) as image:
    return getattr(image, 'n_frames', 1)
  return 1


def _opened(path: str | pathlib.Path, most: int) -> list[Picture]:
  path = pathlib.Path(path)
  raw = files.read_bytes(path, 'a picture')
  with reading(path, 'a picture'):
    if not raw:
      raise Unusable('an empty file')
    if raw.startswith(SIGNATURE):
      check_png(raw)
    return _decoded(raw, most if raw[:4] in TIFF else 1)


def _decoded(raw: bytes, most: int) -> list[Picture]:
  """Its pages, which are at most `most`."""
  from PIL import Image, UnidentifiedImageError

  try:
    if Image.MAX_IMAGE_PIXELS:  # Pillow's own is a third of ours, which is checked below
      Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MOST_PIXELS)
    opened: Image.Image = Image.open(io.BytesIO(raw))
  except UnidentifiedImageError:
    if raw[:4] in TIFF:  # a TIFF of several deep channels
      return _by_opencv(raw, most)
    raise
  with opened as image:
    pages = getattr(image, 'n_frames', 1)
    _check_pages(pages, most)
    out = []
    for page in range(pages):
      image.seek(page)
      if image.width * image.height * pages > MOST_PIXELS:
        raise Unusable(f'{image.width}x{image.height} is more than {MOST_PIXELS:,} pixels')
      if _deep(raw, image):  # PIL keeps the upper byte of colour, OpenCV all
        image.load()
        orientation = image.getexif().get(0x0112, 1)
        return [_upright(picture, orientation) for picture in _by_opencv(raw, most)]
      out.append(_page(image))
    return out


def _check_pages(pages: int, most: int) -> None:
  if pages > most:
    expected = 'one is' if most == 1 else f'at most {most:,} are'
    raise Unusable(f'{pages} pages or frames; {expected} expected')


def _page(opened: Any) -> Picture:
  """The page that a picture of Pillow's is at."""
  from PIL import ImageOps

  opened.load()
  image = ImageOps.exif_transpose(opened)
  alpha = None
  if image.mode in ('LA', 'PA', 'RGBA', 'La', 'RGBa'):
    alpha = np.asarray(image.getchannel('A'))
    image = image.convert('L' if image.mode[0] == 'L' else 'RGB')
  if image.mode == 'P':
    colours = np.array(image.getpalette('RGB'), np.uint8)
    return Picture(np.asarray(image), _padded(colours.reshape(-1, 3)), alpha)
  if image.mode not in ('1', 'L', 'I', 'F', 'RGB') and not image.mode.startswith('I;16'):
    image = image.convert('RGB')
  return Picture(_signed(np.asarray(image), opened), None, alpha)


def _signed(values: np.ndarray, opened: Any) -> np.ndarray:
  """Whole numbers of a TIFF with the file's own sign; Pillow knows uint8 and int32 only."""
  if opened.format != 'TIFF' or values.dtype.kind not in 'iu':
    return values
  depth, form = (opened.tag_v2.get(tag, (1,))[0] for tag in (258, 339))
  kind = {(8, 2): np.int8, (32, 1): np.uint32}.get((depth, form))
  return values if kind is None else values.view(kind)


def orientation(path: str | pathlib.Path) -> int:
  """The EXIF tag that says how a picture is turned; 1 where it is not, or cannot be known."""
  from PIL import Image

  with contextlib.suppress(Exception), Image.open(path) as image:
    return image.getexif().get(0x0112, 1)
  return 1


class Unusable(ValueError):
  """Why a picture is refused; `reading` puts the path before it."""


def _padded(colours: np.ndarray) -> np.ndarray:
  """A palette of 256 colours, black where the file has fewer."""
  return np.concatenate([colours, np.zeros((256 - len(colours), 3), np.uint8)])


def _deep(raw: bytes, image: Any) -> bool:
  """Whether the file has several channels of more than 8 bits."""
  if raw.startswith(SIGNATURE):
    depth, colour = raw[24], raw[25]
    return depth == 16 and CHANNELS[colour] > 1
  if image.format == 'TIFF':
    bits = image.tag_v2.get(258, (1,))
    return max(bits) > 8 and len(bits) > 1
  return False


def _by_opencv(raw: bytes, most: int) -> list[Picture]:
  import cv2

  _, pages = cv2.imdecodemulti(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
  if not pages:
    raise Unusable('no known form of picture')
  _check_pages(len(pages), most)
  return [_of_pixels(pixels) for pixels in pages]


def _of_pixels(pixels: np.ndarray) -> Picture:
  """OpenCV's [H, W] or [H, W, channels], blue first."""
  if pixels.ndim == 2:
    return Picture(pixels)
  if pixels.shape[-1] not in (3, 4):
    raise Unusable(f'{pixels.shape[-1]} channels; grey or three colours are expected')
  alpha = pixels[..., 3] if pixels.shape[-1] == 4 else None
  return Picture(np.ascontiguousarray(pixels[..., 2::-1]), None, alpha)


def _upright(picture: Picture, orientation: int) -> Picture:
  turn = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: np.swapaxes(x, 0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.swapaxes(x[::-1, ::-1], 0, 1),
    8: lambda x: np.rot90(x, 1),
  }.get(orientation, lambda x: x)
  alpha = None if picture.alpha is None else turn(picture.alpha)
  return Picture(np.ascontiguousarray(turn(picture.values)), picture.palette, alpha)


def check_png(raw: bytes) -> None:
  """Raises ValueError where a PNG is not exactly what was written: see the module's docstring."""
  data, header = [], None
  seen: list[bytes] = []
  for kind, body in _chunks(raw):
    if not seen and kind != b'IHDR':
      raise Unusable('it does not begin with its size')
    if kind == b'IHDR':
      header = _header(body)
    if kind == b'acTL':
      raise Unusable('an animation; one picture is expected')
    if kind == b'IDAT':
      data.append(body)
    seen.append(kind)
  if header is None or not data:
    raise Unusable('it has no pixels')
  if header[3] == 3 and b'PLTE' not in seen:
    raise Unusable('it has no palette')
  expected, packed = _raw_size(*header), b''.join(data)
  if expected > 1032 * len(packed) + 1032:  # no stream of this length can hold so much
    raise Unusable('truncated: too few bytes for its size')
  stream = zlib.decompressobj()
  size = len(stream.decompress(packed, expected + 1))
  if size > expected:
    raise Unusable('more pixels than its size says')
  if size < expected or not stream.eof:
    raise Unusable('truncated: its pixels end early')


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
  """Kind and content of every chunk up to the end; each must have its checksum."""
  place = len(SIGNATURE)
  while place + 12 <= len(raw):
    (length,), kind = struct.unpack_from('>I', raw, place), raw[place + 4 : place + 8]
    end = place + 12 + length
    if end > len(raw):
      break
    body = raw[place + 8 : end - 4]
    if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from('>I', raw, end - 4)[0]:
      raise Unusable(f'damaged: the checksum of its part {kind.decode("latin1")!r} differs')
    yield kind, body
    if kind == b'IEND':
      return
    place = end
  raise Unusable('truncated: it has no end')


def _header(body: bytes) -> tuple[int, int, int, int, int]:
  """Width, height, depth, colour type, interlacing."""
  width, height, depth, colour, _, _, interlaced = struct.unpack('>IIBBBBB', body)
  if not (width and height) or colour not in CHANNELS or depth not in (1, 2, 4, 8, 16):
    raise Unusable('its header makes no sense')
  return width, height, depth, colour, interlaced


def _raw_size(width: int, height: int, depth: int, colour: int, interlaced: int) -> int:
  """Bytes of all rows before compression, each with the byte that names its filter."""
  bits, total = depth * CHANNELS[colour], 0
  for x, y, dx, dy in ADAM7 if interlaced else ((0, 0, 1, 1),):
    columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
    total += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
  return total
