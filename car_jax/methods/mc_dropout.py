"""Monte Carlo dropout (Gal & Ghahramani, ICML 2016): dropout that goes on in prediction.

Batch norms use their running statistics. Letters as in methods/base.py.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Method, Samples, example_keys
from car_jax.typing import Array


class MCDropout(Method):
  """A method with logits; every segmentation has masks of its own, the same in all windows."""

  def __init__(self, method: Method, what: str):
    """what: the run, for messages. Raises UserError for a method without logits."""
    self._method, self._what = method, what
    self.num_classes, self.ignore_label = method.num_classes, method.ignore_label
    if not method.has_logits:
      raise UserError(
        f'{what} draws segmentations of its own; dropout in prediction is of segmenters that give '
        'class probabilities\n  score it as it is; of an ensemble: ensemble:dropout:RUN,dropout:RUN'
      )

  @property
  def has_windows(self) -> bool:
    return self._method.has_windows

  def without_windows(self) -> 'MCDropout':
    return MCDropout(self._method.without_windows(), self._what)

  def predictors(self) -> dict[str, Any]:
    return {'dropout': self._predict}

  def check(self, state: Any, batch: Batch) -> None:
    """Raises UserError for a net without dropout; by shapes alone."""
    jax.eval_shape(lambda state: self._logits(state, batch, jax.random.key(0)), state)

  def _predict(self, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    draw = lambda k: jax.nn.softmax(self._logits(state, batch, jax.random.fold_in(rng, k)))
    probs = jnp.moveaxis(jax.lax.map(draw, jnp.arange(n)), 0, 1)
    return Samples(probs, baselines.uniform(probs.shape[0], n))

  def _logits(self, state: Any, batch: Batch, rng: Array) -> Array:
    keys, used = example_keys(rng, batch), []

    def dropped(call, args, kw, context):
      layer = context.module
      if not isinstance(layer, nn.Dropout) or context.method_name != '__call__':
        return call(*args, **kw)
      x, kept = args[0], 1 - layer.rate
      if not layer.rate:
        return x
      used.append(layer)
      rows = x.reshape(keys.shape[0], -1, *x.shape[1:])  # a layer may see several rows of an image
      shape = [1 if axis in layer.broadcast_dims else side for axis, side in enumerate(x.shape)]
      mask = lambda key: jax.random.bernoulli(
        jax.random.fold_in(key, len(used)), kept, (rows.shape[1], *shape[1:])
      )
      return jnp.where(jax.vmap(mask)(keys), rows / kept, 0).reshape(x.shape)

    with nn.intercept_methods(dropped):
      logits = self._method.logits(state, batch)
    if not used:
      raise UserError(
        f'{self._what} has no dropout: all its draws would be alike\n'
        '  train one that has, such as --config.method.model.dropout=0.1, where its net takes that'
      )
    return logits
