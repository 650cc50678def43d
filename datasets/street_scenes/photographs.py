"""Weather and light for photographs, whose distances nobody measured: guessed from their label ids.

The ground is taken for flat and the camera for one as in Cityscapes; what stands on the ground is
as far off as the ground at its foot. Letters: h x w pixels.
"""

import numpy as np

from car_jax.datasets.street_scenes import canvas, weather
from car_jax.datasets.street_scenes.canvas import Camera
from car_jax.datasets.street_scenes.develop import Light

GROUND = (6, 7, 8, 9, 10, 22)  # ground, road, sidewalk, parking, rail track, terrain
SKY = 23
FARTHEST = 400.0  # metres
GRAIN = 3.0  # grey levels of noise for each unit that weather adds


def camera(height: int, width: int) -> Camera:
  return Camera(0.42 * height, width / 2, 2.0 * height, 1.3, 0.0)


def light(image: np.ndarray, ids: np.ndarray) -> Light:
  """image uint8 [h, w, 3] with label ids [h, w]; nothing in it is known to give off light."""
  h, w = ids.shape
  view = camera(h, w)
  ground, sky = np.isin(ids, GROUND), ids == SKY
  rows = np.where(ground, np.arange(h)[:, None], h - 1)  # of the first ground at or below
  foot = np.minimum.accumulate(rows[::-1], axis=0)[::-1]
  depth = np.minimum(view.ground_depth(foot), FARTHEST)
  depth = np.where(sky, canvas.SKY_DEPTH, depth).astype(np.float32)
  lies = ground.astype(np.float32)
  colour = image.astype(np.float32)
  return Light(
    colour, np.zeros_like(colour), depth, lies, lies, sky.astype(np.float32), view.horizon
  )


def weathered(
  image: np.ndarray, ids: np.ndarray, domain: str, strength: float, rng: np.random.Generator
) -> np.ndarray:
  """The photograph in a domain's weather, from none of it (strength 0) to heavy (1), uint8."""
  if domain == 'clear' or not strength:
    return image
  colour, grain = weather.EFFECTS[domain](light(image, ids), float(strength), rng)
  colour = colour + GRAIN * (grain - 1) * rng.standard_normal(colour.shape, np.float32)
  return np.clip(colour + 0.5, 0, 255).astype(np.uint8)
