"""One way to read a picture, against OpenCV's and Pillow's numbers; damage of every kind."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from car_jax import pictures
from car_jax.errors import UserError

RNG = np.random.default_rng(0)


def saved(path, image, **kw):
  (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **kw)
  return path


def written(path, values):
  """By OpenCV: any depth, channels in the order red, green, blue here."""
  assert cv2.imwrite(
    str(path), values if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]
  )
  return path


@pytest.mark.parametrize(
  'kind', ['uint8', 'int8', 'uint16', 'int16', 'int32', 'float32', 'float64']
)
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_tiffs_of_any_depth_and_sign(tmp_path, kind, channels):
  values = RNG.uniform(-100, 100, (5, 6, channels)).astype(kind).squeeze()
  found = pictures.open_picture(written(tmp_path / 'x.tif', values))
  np.testing.assert_array_equal(found.values, values[..., :3] if channels > 1 else values)
  assert found.deep == (kind != 'uint8')
  assert (found.alpha is not None) == (channels == 4)
  if channels == 4:
    np.testing.assert_array_equal(found.alpha, values[..., 3])


@pytest.mark.parametrize('shape', [(7, 5), (7, 5, 3), (7, 5, 4)])
@pytest.mark.parametrize('most', [4096, 65536])
def test_pngs_of_16_bits_keep_their_low_byte(tmp_path, shape, most):
  values = RNG.integers(0, most, shape).astype(np.uint16)
  found = pictures.open_picture(written(tmp_path / 'x.png', values))
  assert found.values.dtype.itemsize >= 2
  np.testing.assert_array_equal(found.values, values[..., :3] if len(shape) > 2 else values)


def test_numbers_without_a_sign_beyond_31_bits(tmp_path):
  """Pillow writes signed ones; the tag of the kind is changed in the file."""
  values = np.array([[1, 2**31 + 5]], np.uint32)
  path = saved(tmp_path / 'x.tif', values.view(np.int32))
  raw = path.read_bytes()
  entry = struct.pack('<HHI', 339, 3, 1)
  assert raw.count(entry + b'\2\0') == 1
  path.write_bytes(raw.replace(entry + b'\2\0', entry + b'\1\0'))
  assert pictures.open_picture(path).values.tolist() == values.tolist()


@pytest.mark.parametrize('turn', range(1, 9))
@pytest.mark.parametrize(
  ('name', 'kind'), [('x.png', 'uint8'), ('x.tif', 'uint8'), ('x.png', 'uint16')]
)
def test_every_exif_turn_is_pillows(tmp_path, turn, name, kind):
  exif = Image.Exif()
  exif[0x0112] = turn
  values = RNG.integers(0, 255, (4, 6, 3)).astype(np.uint8)
  path = saved(tmp_path / name, values, exif=exif)
  want = np.asarray(ImageOps.exif_transpose(Image.open(path)))
  if kind == 'uint16':  # the same picture, its samples doubled to 16 bits
    deep = written(tmp_path / 'deep.png', values.astype(np.uint16) * 257).read_bytes()
    raw = path.read_bytes()
    at = raw.index(b'eXIf') - 4
    length = struct.unpack('>I', raw[at : at + 4])[0] + 12
    path.write_bytes(deep[:33] + raw[at : at + length] + deep[33:])
    want = want.astype(np.uint16) * 257
  np.testing.assert_array_equal(pictures.open_picture(path).values, want)
  assert pictures.orientation(path) == turn


def test_one_flipped_bit_or_a_cut_of_a_png_is_noticed(tmp_path):
  """Whatever is accepted has the pixels of the file as it was."""
  mask = np.zeros((64, 96), np.uint8)
  cv2.circle(mask, (40, 30), 20, 255, -1)
  labels = np.kron(RNG.integers(0, 19, (8, 12)), np.ones((8, 8), int)).astype(np.uint8)
  draw, path = random.Random(1), tmp_path / 'x.png'
  for image in (mask, labels):
    raw = saved(path, image).read_bytes()
    for i in range(200):
      new = bytearray(raw)
      if i % 4:
        new[draw.randrange(len(new))] ^= 1 << draw.randrange(8)
      else:
        del new[draw.randrange(len(new)) :]
      path.write_bytes(new)
      with pytest.raises(UserError, match='x.png cannot be read as a picture'):
        pictures.open_picture(path)


def chunk(kind, body):
  return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png(rows, width=6, height=8, depth=8, colour=0, extra=b''):
  head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0))
  body = head + extra + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + body


def pages(kind):
  out = io.BytesIO()
  first, second = (Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (0, 200))
  first.save(out, kind, save_all=True, append_images=[second])
  return out.getvalue()


ROW = b'\0' + bytes(6)


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    (b'', 'an empty file'),
    (png(ROW * 4), 'truncated: its pixels end early'),
    (png(ROW * 9), 'more pixels than its size says'),
    (png(ROW, 60000, 60000), 'truncated: too few bytes for its size'),
    (png(ROW, 0, 8), 'its header makes no sense'),
    (png(ROW * 8, colour=3), 'it has no palette'),
    (png(ROW * 8)[:-12], 'truncated: it has no end'),
    (pages('PNG'), 'an animation'),
    (pages('TIFF'), '2 pages or frames'),
    (pages('GIF'), '2 pages or frames'),
    (b'<svg/>', 'cannot identify image file'),
  ],
)
def test_what_is_no_whole_picture(tmp_path, raw, message):
  path = tmp_path / 'x.png'
  path.write_bytes(raw)
  with pytest.raises(UserError) as e:
    pictures.open_picture(path)
  assert message in str(e.value)
  assert 'x.png' in str(e.value)


def test_interlaced_palette_and_bit_files_are_whole(tmp_path):
  rows = np.frombuffer((ROW * 8), np.uint8).reshape(8, 7)[:, 1:]
  (tmp_path / 'x.png').write_bytes(png(ROW * 8))
  np.testing.assert_array_equal(pictures.open_picture(tmp_path / 'x.png').values, rows)
  bits = RNG.random((9, 11)) < 0.5
  assert (pictures.open_picture(saved(tmp_path / 'b.png', bits)).values == bits).all()
  picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) % 3)
  picture.putpalette([9, 8, 7, 6, 5, 4, 3, 2, 1])
  found = pictures.open_picture(saved(tmp_path / 'p.png', picture))
  np.testing.assert_array_equal(found.values, np.asarray(picture))
  np.testing.assert_array_equal(found.shown, np.asarray(picture.convert('RGB')))


def test_pillows_own_limit_is_no_smaller_than_ours(tmp_path, monkeypatch, recwarn):
  Image.new('L', (60, 50)).save(tmp_path / 'x.png')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1_000)
  assert pictures.open_picture(tmp_path / 'x.png').shown.shape[:2] == (50, 60)
  assert not recwarn.list
  monkeypatch.setattr(pictures, 'MOST_PIXELS', 2_999)
  with pytest.raises(UserError, match='more than 2,999 pixels'):
    pictures.open_picture(tmp_path / 'x.png')
