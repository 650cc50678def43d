"""ControlNet (Zhang et al., arXiv 2302.05543) on label ids, as GenVal trains it (arXiv 2312.09231).

The UNet, the autoencoder and the text encoder of a folder of Stable Diffusion are frozen; only the
ControlNet learns. The published code also updates after the last batches of an epoch, fewer than it
accumulates, divided as if they were all; here `optim.accumulate` counts on across epochs.

Letters: B images, H x W pixels, K channels of a hint. Batches as in generate/captioned.py.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import files
from car_jax.constants import Constants, constants
from car_jax.errors import UserError
from car_jax.generate import configs
from car_jax.generate.blocks import Compute
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import ControlNet, Encoder, UNet, controlnet_from_unet
from car_jax.generate.weights import StableDiffusion, load, load_pipeline, open_pipeline, save
from car_jax.methods import diffusion
from car_jax.methods.base import Array, Batch, Logs, Method
from car_jax.methods.train_state import TrainState, saved_variables
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Optim, Width


def controlled_losses(
  nets: tuple[UNet, ControlNet],
  params: tuple[Any, Any],
  schedule: NoiseSchedule,
  seen: tuple[Array, Array, Array],
  context: Array,
  hint: Array,
) -> Array:
  """The loss of each image [B]: diffusion.noise_losses of a UNet with its ControlNet.

  seen: latents and noise [B, h, w, C], timesteps [B]. context [B, L, D], hint [B, H, W, K].
  """
  (unet, control), (unet_params, control_params) = nets, params

  def predict(x: Array, t: Array) -> Array:
    added = control.apply({'params': control_params}, x, t, context, hint)
    return unet.apply({'params': unet_params}, x, t, context, added)

  return diffusion.noise_losses(schedule, predict, *seen)


class State(flax.struct.PyTreeNode):
  step: Array
  controlnet: TrainState
  unet: Constants
  vae: Constants
  text_encoder: Constants


@dataclasses.dataclass(frozen=True)
class ControlNetTraining(Method):
  """All that is drawn in a step, latents, noise and times, comes of its key."""

  weights: str = ''
  """A folder of Stable Diffusion 1.x in the layout of diffusers; its networks are frozen."""
  start: str = ''
  """The folder of a ControlNet to go on from; empty to copy the UNet's encoder, as published."""
  hint_widths: tuple[Width, ...] = (16, 32, 96, 256)
  """Channels of the hint's encoder; every one after the first halves the size."""
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  """What the networks compute in; norms, softmax and the autoencoder are float32."""
  frozen_dtype: Literal['float32', 'bfloat16', 'float16'] = 'bfloat16'
  """What the frozen UNet and text encoder are kept in."""
  remat: bool = True
  """Recomputes blocks in the backward pass, which saves memory."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adamw', lr=1e-5))
  """The ControlNet's optimizer."""
  steps_per_epoch: int = 1

  @property
  def compute(self) -> Compute:
    return Compute(jnp.dtype(self.dtype), self.remat)

  @functools.cached_property
  def frozen(self) -> StableDiffusion:
    """The frozen networks, without parameters. Raises UserError for a folder that has them not."""
    if not self.weights:
      raise UserError(
        'config.method.weights is missing, a folder of Stable Diffusion 1.x (docs/generate.md)\n'
        '  or of a small model of your own: car-jax generate export RUN --out FOLDER'
      )
    opened = open_pipeline(self.weights, compute=self.compute)
    if opened.unet.in_channels != opened.vae.latent_channels:
      raise UserError(
        f'{self.weights} is a model for inpainting\n  a ControlNet is trained on one for text'
      )
    return opened

  def controlnet(self, channels: int) -> ControlNet:
    """For hints of so many channels. Raises UserError where `start` has other sizes."""
    unet = self.frozen.unet
    names = [f.name for f in dataclasses.fields(Encoder) if f.name not in ('parent', 'name')]
    same: dict[str, Any] = {name: getattr(unet, name) for name in names}
    same |= dict(conditioning_channels=channels)
    net = ControlNet(**same, conditioning_embedding_out_channels=self.hint_widths)
    if not self.start:
      return net
    path = pathlib.Path(self.start) / 'config.json'
    begun = configs.module('controlnet', files.read_json(path), path, self.compute)
    if wrong := [k for k, v in same.items() if getattr(begun, k) != v]:
      values = f'{getattr(begun, wrong[0])}, not {getattr(net, wrong[0])}'
      raise UserError(
        f'{path}: {wrong[0]} is {values}\n'
        '  conditioning_channels go with config.data.hint, the others with config.method.weights'
      )
    return begun

  @property
  def optimizer(self) -> Optimizer:
    return optimizer(self.optim, self.steps_per_epoch)

  def init(self, seed: int, batch: Batch) -> State:
    opened = self.frozen
    diffusion.check_batch(batch, opened.vae, opened.unet, opened.text_encoder)
    net = self.controlnet(np.shape(batch['hint'])[-1])
    if (halved := 2 ** (len(net.conditioning_embedding_out_channels) - 1)) != opened.vae.factor:
      raise UserError(
        f'the hint is made {halved} times smaller, the picture {opened.vae.factor} times\n'
        f'  config.method.hint_widths needs {opened.vae.factor.bit_length()} numbers'
      )
    dtype = jnp.dtype(self.frozen_dtype)
    kept = load_pipeline(self.weights, dtype=dtype, compute=self.compute).params
    params = load('controlnet', self.start)[1] if self.start else None
    if params is None:  # as the file has it, not rounded to what the frozen part is kept in
      copied = load('unet', pathlib.Path(self.weights) / 'unet')[1]
      params = controlnet_from_unet(net, copied, seed)
    return State(
      step=np.int32(0),
      controlnet=TrainState(params, {}, self.optimizer.init(params)),
      unet=constants(kept['unet']),
      vae=constants(diffusion.encoder_only(kept['vae'])),
      text_encoder=constants(kept['text_encoder']),
    )

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    opened, hint = self.frozen, batch['hint']
    nets = opened.unet, self.controlnet(hint.shape[-1])
    seen = diffusion.drawn(opened.vae, state.vae.arrays, batch['image'], opened.schedule, rng)
    context = opened.text_encoder.apply({'params': state.text_encoder.arrays}, batch['tokens'])

    def loss_of(params):
      both = state.unet.arrays, params
      return jnp.mean(controlled_losses(nets, both, opened.schedule, seen, context, hint))

    loss, grads = jax.value_and_grad(loss_of)(state.controlnet.params)
    net = state.controlnet.apply_gradients(self.optimizer, state.step, grads, {})
    return state.replace(step=state.step + 1, controlnet=net), {'loss/noise': loss}

  def predictors(self) -> dict[str, Any]:
    return {}  # nothing to segment

  def export(self, saved: dict[str, Any], data: Any, folder: pathlib.Path) -> None:
    """A checkpoint's ControlNet in the layout of diffusers."""
    params = saved_variables(saved['controlnet'])['params']
    first = params['controlnet_cond_embedding']['conv_in']['kernel']
    save('controlnet', folder, self.controlnet(first.shape[2]), params)
