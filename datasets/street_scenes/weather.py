"""Fog, rain, snow and night, each from a trace to heavy; they change light, never geometry.

Every random draw is made whatever the strength, so that stronger weather is more of the same.

Letters: h x w pixels of any size; drops, flakes and halos grow with it.
"""

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from car_jax.datasets.street_scenes.develop import SIZE, Light, noise, transmission

FOG_DENSITY = 0.045  # per metre at strength 1: a visual range of about 65 m


def unit(size: tuple[int, int]) -> float:
  """Pixels of a picture for one of a drawn scene's."""
  return size[0] / SIZE[0]


def _pixels(size: tuple[int, int], count: int) -> int:
  """As many pixels of a picture as `count` of a drawn scene's, at least one."""
  return max(1, round(count * unit(size)))


def clear(light: Light, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  return light.colour, 1.0


def fog(light: Light, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  """Light scattered in front of things: the farther, the less is left of them."""
  air = np.array([204, 206, 208], np.float32) * np.float32(rng.uniform(0.92, 1.04))
  size = light.depth.shape
  patchy = 1 + 0.25 * noise(rng, size, 120 * unit(size))
  left = transmission(light.depth * patchy, FOG_DENSITY * strength)[..., None]
  return light.colour * left + air * (1 - left), 1.0


def rain(light: Light, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  """Dim and grey, a wet road that mirrors what stands on it, streaks, some mist."""
  s, size = np.float32(strength), light.depth.shape
  grey = light.colour.mean(2, keepdims=True)
  colour = (light.colour + 0.4 * s * (grey - light.colour)) * (1 - 0.3 * s)
  wet = _mirrored(colour, light.horizon)
  puddles = np.clip(0.55 + 0.7 * noise(rng, size, 40 * unit(size)), 0.15, 1) * light.ground
  mirror = (0.62 * s * puddles)[..., None]
  colour = colour * (1 - 0.25 * s * light.ground[..., None])
  colour = colour + mirror * (wet - colour)
  left = transmission(light.depth, 0.009 * strength)[..., None]
  colour = colour * left + 138 * (1 - left)
  streaks = _streaks(rng, strength, size)[..., None]
  return colour + streaks * (np.array([206, 210, 216], np.float32) - colour), 1 + 0.3 * strength


def _mirrored(colour: np.ndarray, horizon: float) -> np.ndarray:
  """The picture turned over at the horizon, smeared downwards."""
  size = colour.shape[:2]
  rows = np.clip(2 * horizon - np.arange(size[0]), 0, size[0] - 1).astype(np.int32)
  return ndimage.uniform_filter1d(colour[rows], _pixels(size, 13), axis=0)


def _streaks(rng: np.random.Generator, strength: float, size: tuple[int, int]) -> np.ndarray:
  """Opacity of falling drops [h, w]; their number grows with strength."""
  image, big = Image.new('L', (size[1], size[0]), 0), unit(size)
  draw = ImageDraw.Draw(image)
  slant = rng.uniform(-0.25, 0.25)
  drops = rng.random((700, 4))
  for x, y, near, tone in drops[: round(700 * strength)].tolist():
    u, v, length = x * size[1], (y * 1.2 - 0.1) * size[0], (6 + 22 * near * near) * big
    ends = u, v, u + slant * length, v + length
    draw.line(ends, fill=round(45 + 80 * tone), width=max(1, int(big)))
  return ndimage.uniform_filter1d(np.asarray(image, np.float32), _pixels(size, 3), axis=0) / 255


def snow(light: Light, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  """Lying snow on what faces upwards, flakes in the air, a bright flat light."""
  s, size = np.float32(strength), light.depth.shape
  drift = noise(rng, size, 24 * unit(size)) + 0.6 * noise(rng, size, 9 * unit(size))
  lying = np.clip(2.2 * s - 0.95 + 0.5 * drift, 0, 1) * light.top
  crest = np.clip(1.6 * s - 0.3 + 0.5 * drift, 0, 1) * _crests(light)
  cover = np.maximum(lying * (0.9 - 0.25 * light.ground), 0.85 * crest)[..., None]
  white = np.array([226, 229, 236], np.float32) * (1 + 0.05 * drift[..., None])
  grey = light.colour.mean(2, keepdims=True)
  colour = light.colour + 0.35 * s * (grey - light.colour) + 12 * s
  colour = colour + cover * (white - colour)
  left = transmission(light.depth, 0.014 * strength)[..., None]
  colour = colour * left + 212 * (1 - left)
  flakes = _flakes(rng, strength, size)[..., None]
  return colour + flakes * (244 - colour), 1.0


def _crests(light: Light) -> np.ndarray:
  """1 where a thing ends upwards against something much farther off [h, w]."""
  k = _pixels(light.depth.shape, 3)
  behind = light.depth[:-k] > light.depth[k:] * 1.3 + 2
  crest = np.zeros(light.depth.shape, np.float32)
  crest[k:] = behind * (1 - light.ground[k:]) * (1 - light.sky[k:])
  return crest


def _flakes(rng: np.random.Generator, strength: float, size: tuple[int, int]) -> np.ndarray:
  """Opacity of falling flakes [h, w]: many small, a few near ones large."""
  image, big = Image.new('L', (size[1], size[0]), 0), unit(size)
  draw = ImageDraw.Draw(image)
  flakes = rng.random((900, 4))
  for x, y, near, tone in flakes[: round(900 * strength)].tolist():
    u, v, radius = x * size[1], y * size[0], (0.4 + 2.2 * near**6) * big
    draw.ellipse(
      (u - radius, v - radius, u + radius, v + radius * 1.3), fill=round(120 + 120 * tone)
    )
  return ndimage.uniform_filter(np.asarray(image, np.float32), _pixels(size, 2)) / 255


def night(light: Light, strength: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
  """Dark and blue but for windows, lamps, signals and the camera car's headlights."""
  s, size = strength, light.depth.shape
  day = 1 - s * (1 - np.array([0.13, 0.145, 0.2], np.float32))
  dark = day * (1 - 0.75 * s * light.sky[..., None])
  columns = np.arange(size[1], dtype=np.float32) / size[1] - np.float32(0.5)
  aim = 1 / (1 + (columns * 2.6) ** 2)
  beam = np.clip(1.15 - light.depth / 48, 0, 1) * aim[None] * (0.35 + 0.65 * light.ground)
  lamps = beam[..., None] * np.array([1.0, 0.94, 0.8], np.float32)
  colour = light.colour * (dark + 0.72 * s * lamps)
  colour = colour + s * (0.9 * light.glow - 0.5 * np.minimum(light.glow, colour))
  for width, share in ((5, 0.5), (15, 0.7), (41, 0.9)):
    window = (_pixels(size, width), _pixels(size, width), 1)
    halo = ndimage.uniform_filter(ndimage.uniform_filter(light.glow, window), window)
    colour = colour + s * share * halo
  return colour, 1 + 1.2 * strength


EFFECTS = {'clear': clear, 'fog': fog, 'rain': rain, 'snow': snow, 'night': night}
"""Light, strength, random stream -> float32 [h, w, 3] grey levels and a factor on the noise."""
