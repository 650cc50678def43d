"""Local temperature scaling as a calibrator: the net of a trained run, without its segmenter.

Letters: B images, H x W pixels, C classes.
"""

from typing import Any

import flax.struct
import jax

from car_jax.calibrate.base import Fit
from car_jax.errors import UserError
from car_jax.nn.local_temperature import Inputs, LocalTemperature
from car_jax.typing import Array


class Local(flax.struct.PyTreeNode):
  """Logits divided by a temperature for each pixel; `params` of nn/local_temperature.py."""

  params: Any
  inputs: Inputs = flax.struct.field(pytree_node=False, default='logits+image')

  NEEDS = 'image'

  @property
  def temperatures(self) -> None:
    return None

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    """Whole maps [B, H, W, C] only: a pixel's temperature depends on its neighbours."""
    if image is None:
      raise UserError(
        'local temperature scaling needs the images, and there are none\n'
        '  name them in the column image of a CSV, or leave the calibrator out'
      )
    if logits.ndim != 4:
      raise ValueError('local temperature scaling needs whole maps [B, H, W, C]')
    net: Any = LocalTemperature(self.inputs)
    return logits / net.apply({'params': self.params}, logits, image)


def from_run(path: str, step: str = '') -> Fit:
  """The calibrator of a checkpoint of method lts."""
  from car_jax.evaluate import checkpointed

  loaded = checkpointed.load(path, step)
  about = dict(
    kind='lts',
    seed=loaded.config.seed,
    temperatures=None,
    classes=loaded.method.num_classes,
    run=str(loaded.path),
    warnings=[],
  )
  params = jax.device_get(loaded.state.net.params)
  return Fit(Local(params, loaded.method.net.inputs), about)
