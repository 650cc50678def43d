"""Street scenes as seen from a car, drawn: a small stand-in for a data set of photographs.

A scene is a pure function of (seed, index). Its geometry, and with it the labels, does not depend
on the weather, so that one scene can be seen in clear air and, label for label, in fog.

Letters: H x W pixels, W = 2 H.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from car_jax.errors import UserError, nearest
from datasets.street_scenes import canvas, develop, ground, layout, unknown, weather

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
) -> Scene:
  """The scene in the domain's weather, from none of it (strength 0) to heavy (1).

  A share of the scenes has objects of no known class; a larger share adds to those of a smaller.
  """
  check(domain, strength)
  parts = (GEOMETRY, LIGHT, WEATHER, SENSOR, UNKNOWN)
  streams = {part: np.random.default_rng([seed, index, part]) for part in parts}
  camera = ground.camera(streams[GEOMETRY], canvas.HEIGHT)
  painted = canvas.Canvas(camera)
  street = ground.plan(streams[GEOMETRY])
  ground.lay(painted, streams[GEOMETRY], street)
  strange = unknown.things(painted, streams[UNKNOWN], street, unknown_share)
  layout.furnish(painted, streams[GEOMETRY], street, strange)
  light = develop.light(painted, streams[LIGHT])
  effect = weather.EFFECTS[domain if strength > 0 else 'clear']
  colour, grain = effect(light, float(strength), streams[WEATHER])
  image = develop.expose(colour, streams[SENSOR], grain)
  return Scene(_resized(image, height), *_labels(painted, height))


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
