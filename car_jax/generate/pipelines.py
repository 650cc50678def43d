"""From noise to pictures: label maps repainted by ControlNet, and parts of pictures painted anew.

Pure functions of parameters and of all that is random, made for jit: the whole loop is one program.
What runs them on the devices is programs.py. Letters: B images, H x W pixels in [-1, 1], h x w
latents of C channels, L tokens, D their width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from car_jax.generate.clip_text import ClipText
from car_jax.generate.samplers import NoiseSchedule, Sampler, denoised, guided
from car_jax.generate.unet import ControlNet, UNet, mean_attention
from car_jax.generate.vae import VAE, Pixels

Array = jax.Array
Params = dict[str, Any]
Predict = Callable[[Array, Array], Any]


class Networks(NamedTuple):
  """Parameters of these come as a dict by the same names."""

  unet: UNet
  vae: VAE | Pixels
  text_encoder: ClipText
  controlnet: ControlNet | None = None

  def call(self, kind: str, params: Params, *inputs: Any, **kw: Any) -> Any:
    return getattr(self, kind).apply({'params': params[kind]}, *inputs, **kw)

  @property
  def multiple(self) -> int:
    """Sides of pictures are multiples of this."""
    return self.vae.factor * 2 ** (len(self.unet.block_out_channels) - 1)


def context(nets: Networks, params: Params, ids: Array) -> Array:
  """Token ids [2 B, L], first those of no prompt, then those of the prompts -> [2 B, L, D]."""
  return nets.call('text_encoder', params, ids)


def guided_noise(
  nets: Networks,
  params: Params,
  text: Array,
  scale: float,
  *,
  hint: Array | None = None,
  strength: float = 1.0,
  beside: Array | None = None,
  focus: Array | None = None,
) -> Predict:
  """predict(x, t): the noise in latents x [B, h, w, C], with guidance by text [2 B, L, D].

  hint [B, H, W, K]: ControlNet sees it, with and without the text alike, and adds to the UNet with
  `strength`. beside [B, h, w, C + 1]: what an inpainting net sees besides, see `surroundings`.
  focus [2 B, L]: weights of tokens; predict then also gives the attention to these [2 B, h, w].
  """
  twice = lambda a: jnp.concatenate([a, a])

  def predict(x: Array, t: Array) -> Any:
    seen, added = twice(x), None
    if hint is not None:
      added = nets.call('controlnet', params, seen, t, text, twice(hint), strength)
    if beside is not None:
      seen = jnp.concatenate([seen, twice(beside)], -1)
    if focus is None:
      return guided(nets.call('unet', params, seen, t, text, added), scale)
    kw = dict(focus=focus, mutable='intermediates')
    eps, sown = nets.call('unet', params, seen, t, text, added, **kw)
    return guided(eps, scale), mean_attention(sown['intermediates'], (x.shape[1], x.shape[2]))

  return predict


def repainted(
  nets: Networks,
  sampler: Sampler,
  params: Params,
  ids: Array,
  latents: Array,
  hint: Array,
  *,
  scale: float,
  strength: float = 1.0,
  keep: bool = False,
) -> Array:
  """Noise [B, h, w, C] -> latents of a picture that follows hint [B, H, W, K] and the prompts.

  With `keep` those after every evaluation, [N, B, h, w, C].
  """
  text = context(nets, params, ids)
  predict = guided_noise(nets, params, text, scale, hint=hint, strength=strength)
  return denoised(sampler, predict, latents, keep=keep)


def decoded(nets: Networks, params: Params, latents: Array) -> Array:
  """[B, h, w, C] -> pictures [B, H, W, 3] float32, about in [-1, 1]."""
  return nets.call('vae', params, latents, method='decode')


def encoded(nets: Networks, params: Params, image: Array, noise: Array) -> Array:
  """[B, H, W, 3] -> latents [B, h, w, C], drawn from the posterior by `noise`."""
  return nets.call('vae', params, image, noise, method='encode')


def surroundings(nets: Networks, params: Params, image: Array, mask: Array, noise: Array) -> Array:
  """What an inpainting net sees beside the noisy latents: [B, h, w, 1 + C].

  mask [B, H, W] bool, True where it is to paint. The first pixel of each latent counts, as
  published; then the latents of the picture with grey in place of what is masked.
  """
  factor = nets.vae.factor
  cells = mask[:, ::factor, ::factor, None].astype(jnp.float32)
  masked = jnp.where(mask[..., None], 0.0, image)
  return jnp.concatenate([cells, encoded(nets, params, masked, noise)], -1)


def first_latents(
  schedule: NoiseSchedule, sampler: Sampler, latents: Array, noise: Array, strength: float
) -> Array:
  """Where the loop starts: at `noise` [B, h, w, C], or with a strength below 1 at the picture's
  latents with as much of it as the sampler's first timestep has."""
  return noise if strength >= 1 else schedule.noised(latents, noise, int(sampler.timesteps[0]))


def attended(sampler: Sampler, predict: Predict, x: Array) -> tuple[Array, Array]:
  """As samplers.denoised, for a predict that gives attention too -> latents, and the mean of that
  over all evaluations, with the text alone: [B, h, w]."""
  times = jnp.asarray(sampler.timesteps)

  def body(i: Array, carry: Any) -> Any:
    state, total = carry
    eps, seen = predict(state.x, times[i])
    return sampler.step(state, i, eps), total + jnp.split(seen, 2)[1]

  first = sampler.start(x), jnp.zeros(x.shape[:3], jnp.float32)
  state, total = jax.lax.fori_loop(0, len(times), body, first)
  return state.x, total / len(times)
