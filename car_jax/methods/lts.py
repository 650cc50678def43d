"""Local temperature scaling: a net that divides a frozen segmenter's logits, trained by NLL.

The net is nn/local_temperature.py; the training that of RELIS (arXiv 2303.11298). Letters as in
methods/base.py.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import registry
from car_jax.methods import baselines
from car_jax.methods.base import Batch, Logs, Method
from car_jax.methods.inference import Inference
from car_jax.methods.train_state import Frozen, TrainState, create
from car_jax.nn.init import initialize
from car_jax.nn.resize import resize_bilinear
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Net, Optim
from car_jax.typing import Array


class State(flax.struct.PyTreeNode):
  step: Array
  segmenter: Frozen
  net: TrainState


@dataclasses.dataclass(frozen=True)
class LTS(Inference, Method):
  """`segmenter` names a net of the registry whose weights come by config.init from another run.

  Without config.init it is the temperature of a net that knows nothing. The loss of an image is the
  mean over its pixels; those of a batch are added up, as published, so that the batch's size acts
  as a factor on the gradient (which Adam hardly notices). Windows, scales and mirrored copies are
  the segmenter's, in training too: temperatures are learnt for the logits that will be predicted.
  """

  num_classes: int
  steps_per_epoch: int
  segmenter: Net
  """The net whose logits are scaled; its weights come by config.init.segmenter."""
  temperature: Net = dataclasses.field(default_factory=lambda: dict(name='local_temperature'))
  """The net that gives every pixel its temperature."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adam', lr=1e-4))
  """Its optimizer."""
  ignore_label: int | None = None

  has_logits = True

  @property
  def given_parts(self) -> tuple[str, ...]:
    return ('segmenter',)

  @property
  def segmenter_net(self) -> Any:
    return registry.net(self.segmenter, num_classes=self.num_classes)

  @property
  def net(self) -> Any:
    return registry.net(self.temperature)

  @property
  def optimizer(self) -> Optimizer:
    return optimizer(self.optim, self.steps_per_epoch)

  def init(self, seed: int, batch: Batch) -> State:
    image = batch['image']
    variables = initialize(self.segmenter_net, seed, image, train=False)
    logits = np.zeros((*np.shape(image)[:3], self.num_classes), np.float32)
    return State(
      step=np.int32(0),
      segmenter=Frozen(variables['params'], variables.get('batch_stats', {})),
      net=create(self.net, self.optimizer, seed, logits, image),
    )

  def raw_logits(self, state: State, batch: Batch) -> Array:
    """[B, H, W, C] of the segmenter alone, at the labels' size."""
    logits = self.predicted(self.segmenter_net, state.segmenter.variables, batch)
    return jax.lax.stop_gradient(logits)

  def logits(self, state: State, batch: Batch) -> Array:
    """[B, H, W, C], scaled."""
    raw = self.raw_logits(state, batch)
    image = resize_bilinear(jnp.asarray(batch['image']), raw.shape[1:3], align_corners=False)
    return raw / self.net.apply(state.net.variables, raw, image)

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    return self.update(state, self.raw_logits(state, batch), batch)

  def update(self, state: State, raw: Array, batch: Batch) -> tuple[State, Logs]:
    """One update on logits [B, H, W, C] that are there already."""
    image, label = batch['image'], batch['label']
    counts = label >= 0
    if self.ignore_label is not None:
      counts &= label != self.ignore_label

    def loss_of(params):
      temperature = self.net.apply({'params': params}, raw, image)
      losses = image_losses(raw / temperature, label, counts)
      return jnp.sum(losses), (losses, temperature)

    (_, (losses, t)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.net.params)
    net = state.net.apply_gradients(self.optimizer, state.step, grads, state.net.batch_stats)
    logs = {'loss/cross_entropy': jnp.mean(losses), 'temperature': jnp.mean(t)}
    return state.replace(step=state.step + 1, net=net), logs

  def predictors(self) -> dict[str, Any]:
    by = lambda logits: lambda state, batch: jax.nn.softmax(logits(state, batch))
    return {
      'argmax': baselines.argmax_of(by(self.logits)),
      'before scaling': baselines.argmax_of(by(self.raw_logits)),
    }


def image_losses(logits: Array, label: Array, counts: Array) -> Array:
  """logits [B, H, W, C], label and counts [B, H, W] -> [B] nats, mean of the pixels that count.

  0 for an image without any.
  """
  logp = jax.nn.log_softmax(logits)
  truth = jnp.where(counts, label, 0)
  losses = -jnp.take_along_axis(logp, truth[..., None], -1)[..., 0]
  total = jnp.sum(jnp.where(counts, losses, 0), (1, 2))
  return total / jnp.maximum(jnp.sum(counts, (1, 2)), 1)
