"""Street scenes as seen from a car, drawn: a small stand-in for a data set of photographs.

A scene is a pure function of (seed, index). Its geometry, and with it the labels, does not depend
on the weather, so that one scene can be seen in clear air and, label for label, in fog.

Letters: H x W pixels, W = 2 H.
"""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image

from car_jax.datasets.street_scenes import canvas, develop, ground, layout, unknown, weather
from car_jax.errors import UserError, nearest

DOMAINS = ('clear', 'fog', 'rain', 'snow', 'night')
GEOMETRY, LIGHT, WEATHER, SENSOR, UNKNOWN = range(11, 16)  # a random stream for each


class Scene(NamedTuple):
  """image uint8 [H, W, 3]; labels uint8 [H, W], Cityscapes' label ids 0 to 33.

  unknown bool [H, W]: objects of no known class; their label id is 5, as that of a few other things
  that are not scored.
  """

  image: np.ndarray
  labels: np.ndarray
  unknown: np.ndarray


def check(domain: str, strength: float) -> None:
  """Raises UserError where `render` has no such domain or strength."""
  if domain not in DOMAINS:
    raise UserError(f'no domain {domain!r}\n{nearest(domain, DOMAINS)}')
  if not 0 <= strength <= 1:
    raise UserError(f'strength {strength} is not between 0 and 1')


def render(
  seed: int,
  index: int,
  *,
  height: int = 256,
  domain: str = 'clear',
  strength: float = 1.0,
  unknown_share: float = 0.0,
  weather_rng: np.random.Generator | None = None,
) -> Scene:
  """The scene in the domain's weather, from none of it (strength 0) to heavy (1).

  A share of the scenes has objects of no known class; a larger share adds to those of a smaller.
  weather_rng: of another fall of rain or snow than the scene's own.
  """
  check(domain, strength)
  painted, light = _lit(seed, index, unknown_share)
  effect = weather.EFFECTS[domain if strength > 0 else 'clear']
  rng = weather_rng or _stream(seed, index, WEATHER)
  colour, grain = effect(light, float(strength), rng)
  image = develop.expose(colour, _stream(seed, index, SENSOR), grain)
  return Scene(_resized(image, height), *_labels(painted, height))


def _stream(seed: int, index: int, part: int) -> np.random.Generator:
  return np.random.default_rng([seed, index, part])


@functools.lru_cache(maxsize=1)  # for the same scene in several weathers
def _lit(seed: int, index: int, unknown_share: float) -> tuple[canvas.Canvas, develop.Light]:
  """The scene before any weather."""
  geometry = _stream(seed, index, GEOMETRY)
  painted = canvas.Canvas(ground.camera(geometry, canvas.HEIGHT))
  street = ground.plan(geometry)
  ground.lay(painted, geometry, street)
  strange = unknown.things(painted, _stream(seed, index, UNKNOWN), street, unknown_share)
  layout.furnish(painted, geometry, street, strange)
  return painted, develop.light(painted, _stream(seed, index, LIGHT))


def _resized(image: np.ndarray, height: int) -> np.ndarray:
  """Averaged over areas when smaller, interpolated when larger."""
  if height == len(image):
    return image
  how = Image.Resampling.BOX if height < len(image) else Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(image).resize((2 * height, height), how))


def _labels(painted: canvas.Canvas, height: int) -> tuple[np.ndarray, np.ndarray]:
  """Each pixel has the label at its middle; and whether that is of an unknown object."""
  table = np.array([paint.label for paint in painted.paints], np.uint8)
  rows = ((np.arange(height) + 0.5) * canvas.HEIGHT / height).astype(np.int64)
  columns = ((np.arange(2 * height) + 0.5) * canvas.WIDTH / (2 * height)).astype(np.int64)
  numbers = painted.numbers()[rows[:, None], columns[None]]
  return table[numbers], np.isin(numbers, painted.unknown)
