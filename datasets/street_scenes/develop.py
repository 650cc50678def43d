"""From painted surfaces to light: textures, shadows, haze, sky, and at last the camera's sensor.

All is h x w pixels, half the canvas: edges come out averaged over four canvas pixels. Functions of
arrays are kept to sums, products, quotients and roots, which every machine rounds alike.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from car_jax.datasets.street_scenes.canvas import HEIGHT, WIDTH, Camera, Canvas

SIZE = (HEIGHT // 2, WIDTH // 2)
HAZE = 1 / 900.0  # per metre, on a clear day
SKIES = (
  ((104, 142, 190), (196, 206, 214)),  # zenith, horizon: blue
  ((150, 166, 184), (212, 214, 214)),
  ((182, 186, 192), (218, 218, 216)),  # overcast
  ((130, 150, 176), (224, 212, 190)),
)
FINE, COARSE = np.zeros(34, np.float32), np.zeros(34, np.float32)
"""How strongly each label's surface is mottled, by the pixel and in patches."""
for _ids, _fine, _coarse in (
  ((7,), 0.05, 0.07),
  ((8, 9, 6), 0.07, 0.09),
  ((11, 15), 0.04, 0.05),
  ((12, 13), 0.09, 0.12),
  ((21,), 0.2, 0.26),
  ((22,), 0.13, 0.16),
  ((24, 25, 32, 33), 0.06, 0.05),
  ((26, 27, 28, 31, 17, 19, 20, 4, 5, 1), 0.025, 0.03),
):
  FINE[list(_ids)], COARSE[list(_ids)] = _fine, _coarse


class Light(NamedTuple):
  """What reaches the camera before any weather."""

  colour: np.ndarray  # float32 [h, w, 3], grey levels 0 to 255
  glow: np.ndarray  # float32 [h, w, 3], light given off
  depth: np.ndarray  # float32 [h, w], metres
  ground: np.ndarray  # float32 [h, w], 1 where the ground is seen
  top: np.ndarray  # float32 [h, w], 1 on what faces upwards
  sky: np.ndarray  # float32 [h, w], 1 where the sky is seen
  horizon: float  # row


def noise(rng: np.random.Generator, size: tuple[int, int], cell: float) -> np.ndarray:
  """Smooth noise in about -1 to 1 [size]; patches are `cell` pixels wide."""
  rows, columns = (max(2, int(s / cell) + 1) for s in size)
  coarse = rng.random((rows, columns), np.float32) * 2 - 1
  image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC)
  return np.asarray(image, np.float32)


def halved(x: np.ndarray) -> np.ndarray:
  """Means of 2 x 2 pixels, float32."""
  pairs = x[::2].astype(np.float32) + x[1::2]
  return (pairs[:, ::2] + pairs[:, 1::2]) * np.float32(0.25)


def light(canvas: Canvas, rng: np.random.Generator) -> Light:
  """The scene on a clear day, and the maps that weather needs."""
  camera, numbers = canvas.camera, canvas.numbers()
  table = np.array([(*p.colour, *p.glow, 255.0 * p.top, p.depth == 0) for p in canvas.paints])
  table = np.clip(table, 0, 255).astype(np.uint8)
  channels = halved(table[numbers])
  centres = numbers[1::2, 1::2]
  rows = np.arange(SIZE[0], dtype=np.float32) * 2 + 1
  depths = np.array([p.depth for p in canvas.paints], np.float32)[centres]
  onto = np.minimum(camera.ground_depth(rows), 400).astype(np.float32)
  depth = np.where(depths == 0, onto[:, None], depths)
  labels = np.array([p.label for p in canvas.paints], np.uint8)[centres]
  ground, sky = channels[..., 7], halved(numbers == 0)
  colour = channels[..., :3] * _texture(rng, camera, labels, depth, ground)[..., None]
  shadow = ndimage.uniform_filter(canvas.shadows(), 3) * ground
  colour *= (1 - 0.72 * shadow)[..., None]
  above, below = (np.array(c, np.float32) for c in SKIES[rng.integers(len(SKIES))])
  colour += _sky(rng, above, below, camera)[:, :, :] * sky[..., None]
  clear = transmission(depth, HAZE)[..., None]
  hazy = colour * clear + below * 0.95 * (1 - clear)
  colour = hazy + sky[..., None] * (colour - hazy)
  horizon = camera.horizon / 2
  return Light(colour, channels[..., 3:6], depth, ground, channels[..., 6] / 255, sky, horizon)


def transmission(depth: np.ndarray, density: float) -> np.ndarray:
  """Share of light left after `depth` metres: exp(-density depth), by a quotient of polynomials."""
  thick = depth * np.float32(density)
  return 1 / (1 + thick * (1 + thick * (0.5 + thick * np.float32(1 / 6))))


def _texture(rng, camera: Camera, labels, depth, ground) -> np.ndarray:
  """Factors around 1 [h, w]; on the ground the pattern lies in perspective."""
  fine = rng.random(SIZE, np.float32) * 2 - 1
  patches = noise(rng, SIZE, 3) + 0.8 * noise(rng, SIZE, 7)
  wide = noise(rng, SIZE, 60)
  tile = noise(rng, (256, 256), 3.1) + noise(rng, (256, 256), 17)
  columns = np.arange(SIZE[1], dtype=np.float32) * 2 + 1
  across = (columns - np.float32(camera.vanish)) * depth / np.float32(camera.focal)
  across = across - np.float32(camera.bend) * depth * depth
  lying = tile[_folded(depth * 9), _folded(across * 14 + np.float32(65536 + 100))]
  coarse = patches + ground * (lying * np.minimum(1, 18 / depth) * 1.2 - patches)
  return 1 + FINE[labels] * fine + COARSE[labels] * coarse + 0.04 * wide


def _folded(place: np.ndarray) -> np.ndarray:
  """Places of 0 or more as indices 0 to 255, to and fro, so that a tile has no seams."""
  return np.abs(place.astype(np.int32) % 511 - 255)


def _sky(rng: np.random.Generator, above, below, camera: Camera) -> np.ndarray:
  """A gradient with soft clouds [h, w, 3]."""
  height = np.arange(SIZE[0], dtype=np.float32) / np.float32(camera.horizon / 2)
  mix = np.clip(height, 0, 1)[:, None, None]
  cloud = noise(rng, SIZE, 90) + 0.5 * noise(rng, SIZE, 36) + 0.25 * noise(rng, SIZE, 14)
  cover = np.clip(cloud * 0.7 + np.float32(rng.uniform(-0.1, 0.5)), 0, 1)[..., None] * 0.75
  sky = above + (below - above) * mix
  return sky + cover * (np.array([236, 236, 238], np.float32) - sky)


def expose(colour: np.ndarray, rng: np.random.Generator, grain: float) -> np.ndarray:
  """The camera: lens blur, exposure, a colour cast, contrast, noise -> uint8 [h, w, 3]."""
  gain = np.float32(rng.uniform(0.86, 1.16)) * (1 + rng.uniform(-0.04, 0.04, 3)).astype(np.float32)
  sharp = np.float32(rng.uniform(0.45, 0.8))
  blurred = sum(np.roll(colour, shift, (0, 1)) for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)))
  colour = (colour * sharp + blurred * (1 - sharp) / 4) * gain
  sigma = np.float32(rng.uniform(2.0, 4.5) * grain)
  speckle = rng.random((*colour.shape[:2], 4), np.float32) - np.float32(0.5)
  colour = colour + sigma * (2.4 * speckle[..., 3:] + 1.6 * speckle[..., :3])
  return np.clip(colour + 0.5, 0, 255).astype(np.uint8)
