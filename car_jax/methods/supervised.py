"""Plain cross-entropy segmentation: baselines, and a calibration net trained ahead of CAR.

Trained on one reader drawn at random per access, the probabilities approach the readers'
frequencies. Letters as in methods/base.py; D channels of a net's last backbone stage.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import lookup
from car_jax.errors import UserError
from car_jax.losses import segmentation
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs
from car_jax.methods.inference import Inference
from car_jax.methods.train_state import OneNet, Recomputing, State, create, full_size
from car_jax.nn import net as nets
from car_jax.nn.layers import at_least_float32
from car_jax.nn.resize import resize_bilinear
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Supervised(Inference, Recomputing, OneNet):
  """Pixels of `ignore_label` are not learnt from. A net's auxiliary heads learn the same labels."""

  has_logits = True

  @property
  def has_features(self) -> bool:
    return self.net.HAS_FEATURES

  def init(self, seed: int, batch: Batch) -> State:
    net = create(self.net, self.optimizer, seed, batch['image'], train=False)
    return State(step=np.int32(0), net=net)

  def loss(self, logits: Array, batch: Batch) -> Array:
    label = self.known(batch['label'])
    return segmentation.cross_entropy(logits, jnp.maximum(label, 0), label >= 0)

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    def loss_of(params):
      out, new = self.net.apply(
        {'params': params, 'batch_stats': state.net.batch_stats},
        batch['image'],
        train=True,
        rngs={'dropout': rng},
        mutable=['batch_stats', 'auxiliary'],
      )
      logs = {'loss/cross_entropy': self.loss(full_size(out), batch)}
      for name, weight in self.net.auxiliary_weights.items():
        size, align = batch['label'].shape[-2:], self.net.align_corners
        logits = resize_bilinear(new['auxiliary'][name][0], size, align_corners=align)
        logs[f'loss/{name}'] = weight * self.loss(logits, batch)
      return sum(logs.values()), (new.get('batch_stats', {}), logs)

    differentiated = jax.value_and_grad(self.recomputed(loss_of), has_aux=True)
    (_, (stats, logs)), grads = differentiated(state.net.params)
    net = state.net.apply_gradients(self.optimizer, state.step, grads, stats)
    return State(state.step + 1, net), logs

  def logits(self, state: State, batch: Batch) -> Array:
    """[B, H, W, C] float32 at the labels' size; their softmax is `probabilities`."""
    return self.predicted(self.net, state.net.variables, batch)

  def features(self, state: State, batch: Batch) -> Array:
    """[B, D]: the last backbone stage of whole images, summed over pixels, the largest made 1.

    As in RELIS (arXiv 2303.11298). Raises UserError where the net has no backbone.
    """
    net, image = self.net, jnp.asarray(batch['image'])
    kw = {'train': False, 'mutable': ['intermediates']}
    _, kept = net.apply(state.net.variables, nets.mirrored(net, image), **kw)
    maps = kept.get('intermediates', {}).get('backbone_features')
    if maps is None:
      having = [n for n in lookup.NETS if getattr(lookup.find('net', n), 'HAS_FEATURES', False)]
      raise UserError(
        f'the net {self.model["name"]!r} has no backbone features\n'
        f'  nets that have: {", ".join(having)}'
      )
    features = at_least_float32(maps[0])
    share = nets.shares(net, image.shape[1:3], features.shape[1:3])
    total = jnp.sum(features if share is None else features * share, (1, 2))
    return total / jnp.max(total, -1, keepdims=True)

  def probabilities(self, state: State, batch: Batch) -> Array:
    """[B, H, W, C]"""
    return jax.nn.softmax(self.logits(state, batch))

  def predictors(self) -> dict[str, Any]:
    return {
      'argmax': baselines.argmax_of(self.probabilities),
      'independent pixels': baselines.pixels_of(self.probabilities),
    }
