"""Small pictures from arrays, as PNG bytes: images, label maps, contours, probabilities, entropy.

Letters: M masks, H x W pixels, C classes. Pictures are [H, W, 3] uint8.
"""

import base64
from typing import Any

import numpy as np
from scipy import ndimage

from car_jax.typing import Array

Picture = np.ndarray

# One colour per reader: distinguishable to the colour blind, and on grey, dark and light alike.
READER_COLOURS = (
  (255, 176, 0),
  (100, 200, 255),
  (255, 96, 144),
  (120, 230, 140),
  (200, 150, 255),
  (255, 255, 120),
  (255, 140, 60),
  (120, 160, 255),
)
# Dark to bright, close to equal steps in lightness.
HEAT = ((8, 4, 30), (74, 12, 107), (165, 44, 96), (229, 92, 48), (251, 164, 10), (252, 252, 180))
VOID = (128, 128, 128)  # where there is no class
LARGEST = 320  # pixels of a side; larger maps are thinned out
SHOWN = 256  # contours are drawn at about this size


def thin(x: Any) -> Any:
  """Every k-th row and column of [H, W, ..], so that neither side exceeds LARGEST."""
  k = -(-max(x.shape[:2]) // LARGEST)
  return x[::k, ::k]


def grey(image: np.ndarray) -> Picture:
  """image [H, W, 1 or 3] in [-1, 1] -> picture."""
  image = np.broadcast_to(image, (*image.shape[:2], 3))
  return np.clip(np.round((thin(image) + 1) * 127.5), 0, 255).astype(np.uint8)


def class_map(labels: Array, palette: np.ndarray) -> Picture:
  """labels [H, W] -> their colours; a label outside the palette (such as 255) is mid grey."""
  colours = np.array([*np.asarray(palette), VOID], np.uint8)
  labels = thin(np.asarray(labels, int))
  return colours[np.where((labels >= 0) & (labels < len(palette)), labels, len(palette))]


def probability_map(probs: Array, palette: np.ndarray) -> Picture:
  """probs [H, W, C] -> the palette's colours mixed by probability."""
  mixed = np.round(thin(probs) @ np.asarray(palette, np.float64))
  return np.clip(mixed, 0, 255).astype(np.uint8)


def entropy_map(probs: Array) -> Picture:
  """probs [H, W, C] -> entropy from 0 (dark) to log C (bright)."""
  probs = thin(np.asarray(probs, np.float64))
  value = -np.sum(probs * np.log(np.maximum(probs, 1e-12)), -1) / np.log(probs.shape[-1])
  return heat(value)


def greyed(picture: Picture, none: np.ndarray) -> Picture:
  """A picture of thinned maps, grey where `none` [H, W] (not thinned) is True."""
  return np.where(thin(none)[..., None], np.array(VOID, np.uint8), picture)


def heat(values: np.ndarray) -> Picture:
  """values [H, W] in [0, 1] -> HEAT colours."""
  at = np.linspace(0, 1, len(HEAT))
  channels = [np.interp(values, at, [c[k] for c in HEAT]) for k in range(3)]
  return np.round(np.stack(channels, -1)).astype(np.uint8)


def contours(image: np.ndarray, masks: np.ndarray, colours=READER_COLOURS) -> Picture:
  """Outlines of label maps [M, H, W] over an image, enlarged without smoothing.

  An outline runs along the inside of every region but class 0. Where outlines coincide their
  colours alternate, so that none hides another.
  """
  base = grey(image)
  k = max(1, SHOWN // max(base.shape[:2]))
  large = lambda x: x.repeat(k, 0).repeat(k, 1)
  picture = large(base)
  edges = np.stack([_edge(large(thin(m)), max(1, k // 2)) for m in masks])
  claims = edges.sum(0)
  turn = np.add(*np.indices(claims.shape)) // max(2, k) % np.maximum(claims, 1)
  rank = edges.cumsum(0) - 1
  for m, edge in enumerate(edges):
    picture[edge & (rank[m] == turn)] = colours[m % len(colours)]
  return picture


def _edge(labels: np.ndarray, width: int) -> np.ndarray:
  """Pixels of classes other than 0 that are within `width` of another class; the rim is none."""
  window = dict(size=2 * width + 1, mode='nearest')
  apart = ndimage.maximum_filter(labels, **window) != ndimage.minimum_filter(labels, **window)
  return apart & (labels != 0)


def rgb(colour: Any) -> str:
  return f'rgb({",".join(str(int(v)) for v in colour)})'


def strip(pictures: list[Picture], gap: int = 4, height: int = 128) -> Picture:
  """Pictures of one shape side by side on white, enlarged without smoothing to about `height`."""
  side = max(p.shape[0] for p in pictures)
  parts = []
  for p in pictures:
    k = max(1, max(side, height) // p.shape[0])
    p = p.repeat(k, 0).repeat(k, 1)
    parts.append(p)
  tall = max(p.shape[0] for p in parts)
  out = []
  for p in parts:
    padded = np.full((tall, p.shape[1] + gap, 3), 255, np.uint8)
    padded[: p.shape[0], : p.shape[1]] = p
    out.append(padded)
  return np.concatenate(out, 1)[:, :-gap]


def small(array: np.ndarray, width: int, nearest: bool = False) -> np.ndarray:
  """[H, W, ..] at most `width` pixels wide, each the mean of what it covers, or the `nearest`."""
  import cv2

  height, wide = array.shape[:2]
  if wide <= width:
    return array
  how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
  return cv2.resize(array, (width, max(1, height * width // wide)), interpolation=how)


def jpeg(picture: Picture, quality: int = 85) -> bytes:
  import cv2

  done, coded = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
  if not done:
    raise ValueError(f'a picture of shape {picture.shape} cannot be coded as JPEG')
  return coded.tobytes()


def png(picture: Picture) -> bytes:
  import cv2

  done, coded = cv2.imencode('.png', picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
  if not done:
    raise ValueError(f'a picture of shape {picture.shape} cannot be coded as PNG')
  return coded.tobytes()


def data_uri(content: bytes, kind: str = 'image/png') -> str:
  return f'data:{kind};base64,{base64.b64encode(content).decode()}'
