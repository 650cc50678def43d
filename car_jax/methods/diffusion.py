"""Latent diffusion from scratch (Rombach et al., arXiv 2112.10752): a UNet and its text encoder.

Both learn to predict the noise in noisy latents of scenes with captions. With sizes as small as the
defaults it learns drawn scenes in minutes; `car-jax generate export` makes the run a
folder in diffusers' layout, on which a ControlNet (methods/controlnet.py) is trained.

Letters: B images, H x W pixels, h x w x C latents, L tokens. Batches as in generate/captioned.py.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import files
from car_jax.constants import Constants, constants
from car_jax.errors import UserError
from car_jax.generate import configs, weights
from car_jax.generate.blocks import Compute
from car_jax.generate.clip_text import ClipText
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import UNet
from car_jax.generate.vae import PIXEL_SCALE, VAE, Pixels
from car_jax.methods.base import Array, Batch, Logs, Method
from car_jax.methods.train_state import TrainState, create, saved_variables
from car_jax.nn.layers import check_divides
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Depth, Optim, Positive, Width

Predict = Callable[[Array, Array], Array]


def noise_losses(
  schedule: NoiseSchedule, predict: Predict, latents: Array, noise: Array, timesteps: Array
) -> Array:
  """Mean squared error of the noise predicted, for each image [B].

  latents and noise [B, h, w, C], timesteps [B]; predict(noisy latents, timesteps) -> [B, h, w, C].
  """
  predicted = predict(schedule.noised(latents, noise, timesteps), timesteps)
  return jnp.mean(jnp.square(predicted - noise), (1, 2, 3))


def drawn(
  vae: VAE | Pixels, params: Any, image: Array, schedule: NoiseSchedule, rng: Array
) -> tuple[Array, Array, Array]:
  """image [B, H, W, 3] -> a draw of the posterior's latents, noise, and uniform timesteps [B]."""
  for_latents, for_time, for_noise = jax.random.split(rng, 3)
  b, h, w, _ = image.shape
  shape = b, h // vae.factor, w // vae.factor, vae.latent_channels
  posterior = jax.random.normal(for_latents, shape)
  latents = vae.apply({'params': params}, image, posterior, method='encode')
  timesteps = jax.random.randint(for_time, (b,), 0, schedule.num_train_timesteps)
  return latents, jax.random.normal(for_noise, shape), timesteps


def encoder_only(params: Any) -> Any:
  """Of an autoencoder's parameters those that `encode` reads."""
  return {k: params[k] for k in ('encoder', 'quant_conv') if k in params}


def check_batch(batch: Batch, vae: VAE | Pixels, unet: Any, text_encoder: ClipText) -> None:
  """Raises UserError for images, hints and tokens that the networks do not take."""
  if missing := [k for k in ('image', 'hint', 'tokens') if k not in batch]:
    raise UserError(
      f'the data have no {missing[0]}; this method takes scenes with captions\n'
      '  use --config.data.name=captioned'
    )
  multiple = vae.factor * 2 ** (len(unet.block_out_channels) - 1)
  h, w = np.shape(batch['image'])[1:3]
  if h % multiple or w % multiple:
    near = [max(1, side // multiple) * multiple for side in (w, h)]
    raise UserError(
      f'images of {w}x{h}: both sides must be multiples of {multiple}\n'
      f'  such as {near[0]}x{near[1]}; see config.data.size'
    )
  most, length = int(np.max(batch['tokens'])), np.shape(batch['tokens'])[1]
  if length != text_encoder.max_position_embeddings or most >= text_encoder.vocab_size:
    raise UserError(
      f'captions of {length} tokens up to number {most}; the text encoder takes '
      f'{text_encoder.max_position_embeddings} below {text_encoder.vocab_size}\n'
      '  config.data.tokenizer is to be the folder of config.method.weights; without weights set '
      'config.method.vocab_size'
    )


class State(flax.struct.PyTreeNode):
  step: Array
  unet: TrainState
  text_encoder: TrainState
  vae: Constants


@dataclasses.dataclass(frozen=True)
class Diffusion(Method):
  """Frozen is the autoencoder alone, where there is one."""

  vae: str = ''
  """The folder of an autoencoder, such as WEIGHTS/vae; empty for diffusion in pixels."""
  patch: Literal[1, 2, 4, 8] = 2
  """In pixels: the side of the squares whose pixels are one place of the UNet."""
  widths: tuple[Width, ...] = (32, 64, 96)
  """The UNet's channels at each level, half the size of the one before."""
  attention: tuple[bool, ...] = (False, True, True)
  """Which levels have transformers; the middle always has."""
  layers: Positive = 1
  """Residual blocks of each level on the way down; one more on the way up."""
  heads: Positive = 4
  """Attention heads, of the text encoder too."""
  groups: Positive = 8
  """Groups of a norm."""
  vocab_size: Positive = 1024
  """Tokens that the text encoder knows, at least as many as the tokenizer."""
  text_width: Width = 64
  """Channels of a token."""
  text_layers: Depth = 2
  """Layers of the text encoder."""
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  """What the networks compute in; parameters are float32."""
  remat: bool = False
  """Recomputes blocks in the backward pass, which saves memory."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adamw', lr=1e-3))
  """The optimizer of both networks."""
  steps_per_epoch: int = 1

  def __post_init__(self) -> None:
    if len(self.attention) != len(self.widths):
      raise UserError(
        f'config.method.attention says of {len(self.attention)} levels whether they have '
        f'transformers; widths has {len(self.widths)}'
      )
    check_divides(self.heads, self.text_width, 'config.method.text_width, of heads')
    configs.module('unet', configs.of_module('unet', self._unet(3)), 'config.method')

  @property
  def schedule(self) -> NoiseSchedule:
    """Stable Diffusion's."""
    return NoiseSchedule(clip=0.0 if self.vae else PIXEL_SCALE)

  @property
  def compute(self) -> Compute:
    return Compute(jnp.dtype(self.dtype), self.remat)

  def _unet(self, channels: int) -> UNet:
    return UNet(
      in_channels=channels,
      out_channels=channels,
      block_out_channels=self.widths,
      attention_levels=self.attention,
      layers_per_block=self.layers,
      cross_attention_dim=self.text_width,
      num_heads=self.heads,
      norm_num_groups=self.groups,
      compute=self.compute,
    )

  @functools.cached_property
  def autoencoder(self) -> VAE | Pixels:
    if not self.vae:
      return Pixels(self.patch)
    path = pathlib.Path(self.vae) / 'config.json'
    return configs.module('vae', files.read_json(path), path)

  @property
  def unet(self) -> UNet:
    return self._unet(self.autoencoder.latent_channels)

  def text_encoder(self, length: int) -> ClipText:
    """For captions of so many tokens."""
    sizes = self.vocab_size, length, self.text_width, 4 * self.text_width
    return ClipText(*sizes, self.text_layers, self.heads, compute=self.compute)

  @property
  def optimizer(self) -> Optimizer:
    return optimizer(self.optim, self.steps_per_epoch)

  def init(self, seed: int, batch: Batch) -> State:
    text_encoder = self.text_encoder(np.shape(batch['tokens'])[1] if 'tokens' in batch else 1)
    check_batch(batch, self.autoencoder, self.unet, text_encoder)
    params = encoder_only(weights.load('vae', self.vae)[1]) if self.vae else {}
    return State(
      step=np.int32(0),
      unet=create(self.unet, self.optimizer, seed, *self.unet.smallest()),
      text_encoder=create(text_encoder, self.optimizer, seed, *text_encoder.smallest()),
      vae=constants(params),
    )

  def step(self, state: State, batch: Batch, rng: Array) -> tuple[State, Logs]:
    text_encoder = self.text_encoder(batch['tokens'].shape[1])
    pair = drawn(self.autoencoder, state.vae.arrays, batch['image'], self.schedule, rng)

    def loss_of(unet_params, text_params):
      context = text_encoder.apply({'params': text_params}, batch['tokens'])
      predict = lambda x, t: self.unet.apply({'params': unet_params}, x, t, context)
      return jnp.mean(noise_losses(self.schedule, predict, *pair))

    nets = state.unet, state.text_encoder
    loss, grads = jax.value_and_grad(loss_of, (0, 1))(*(net.params for net in nets))
    unet, text = (
      net.apply_gradients(self.optimizer, state.step, g, net.batch_stats)
      for net, g in zip(nets, grads, strict=True)
    )
    state = state.replace(step=state.step + 1, unet=unet, text_encoder=text)
    return state, {'loss/noise': loss}

  def predictors(self) -> dict[str, Any]:
    return {}  # nothing to segment

  def export(self, saved: dict[str, Any], data: Any, folder: pathlib.Path) -> None:
    """A checkpoint's arrays as a pipeline's folder. data: config.data, which has the tokenizer."""
    params = {k: saved_variables(saved[k])['params'] for k in ('unet', 'text_encoder')}
    params['vae'] = weights.load('vae', self.vae)[1] if self.vae else {}
    words = data.words()
    nets = self.unet, self.autoencoder, self.text_encoder(words.length)
    pipeline = weights.StableDiffusion(*nets, params, words, self.schedule, 'ddim')
    weights.save_pipeline(folder, pipeline)
