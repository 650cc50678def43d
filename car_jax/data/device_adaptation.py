"""Batches of two domains whose windows and views are made on the accelerator.

The host's threads read plain images; each image's draws follow from its own key, a function of the
seed and of its place in the run. Images of a domain have one size, since compiled shapes are fixed.
Letters as in data/adaptation.py; h x w pixels of a plain image.
"""

import functools
from typing import Any

import jax
import numpy as np

from car_jax.data import device_views
from car_jax.data.adaptation import Steps, as_target, scaled
from car_jax.errors import UserError


class DeviceSteps(Steps):
  """Step k as uint8 [B, h, w, 3], int32 [B, h, w] and places [B], of both domains."""

  def __getitem__(self, k: int) -> dict[str, np.ndarray]:
    step, data = k + self.skip, self.data
    made = [self.source_example(step, row)[:2] for row in self.rows]
    places = [step * data.batch + row for row in self.rows]
    batch = plain('source', made, places)
    if self.views:
      made = [self.target_example(step, g)[:2] for g in self.groups]
      batch |= plain('target', made, [step * data.groups + g for g in self.groups])
    return batch

  def finished(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    made = self._compiled(batch)
    if self.views and self.data.views:
      made['views'] = np.full(len(self.views), self.data.views, np.int32)
    return made

  @functools.cached_property
  def _compiled(self) -> Any:
    return jax.jit(self._cut)

  def _cut(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    key = jax.random.key(self.seed)

    def cut(function: Any, domain: str, number: int, options: Any) -> dict[str, jax.Array]:
      image, label, place = (batch[f'{domain}_{part}'] for part in ('image', 'label', 'place'))
      keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.fold_in(key, number)))(place)
      return scaled(function(image, label, keys, ignore_label=self.ignored, **options))

    data = self.data
    made = cut(device_views.source, 'source', 1, data.source.options)
    if not self.views:
      return made
    if data.views:
      return made | self.mine(cut(device_views.group, 'target', 2, data.target.options))
    return made | self.mine(as_target(cut(device_views.source, 'target', 2, data.target.options)))


def plain(domain: str, made: list[tuple[np.ndarray, np.ndarray]], places: list[int]) -> Any:
  sizes = sorted({image.shape[:2] for image, _ in made})
  if len(sizes) > 1:
    (a, b), (c, d), *_ = sizes
    raise UserError(
      f"config.data.augment='device' takes images of one size; the {domain} has {a}x{b} and {c}x{d}"
      '\n  use --config.data.augment=host'
    )
  images, labels = zip(*made, strict=True)
  return {
    f'{domain}_image': np.stack(images),
    f'{domain}_label': np.stack(labels),
    f'{domain}_place': np.array(places, np.uint32),
  }
