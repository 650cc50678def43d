"""car-jax generate tiny DIR: small networks of random weights in the layout of diffusers.

DIR/sd for text to image, DIR/inpaint, and DIR/controlnet with hints of one channel. Their pictures
mean nothing; the commands take them as they take real weights, in seconds: to try a command, a
machine or a config. Networks that have learnt something come from the method `diffusion`.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from car_jax import errors, paths
from car_jax.generate import captions, tokenizer, weights
from car_jax.generate.clip_text import ClipText
from car_jax.generate.options import DOMAINS, OBJECTS
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import ControlNet, UNet, controlnet_from_unet
from car_jax.generate.vae import VAE
from car_jax.nn.init import initialize

SIZES: dict[str, Any] = dict(
  block_out_channels=(8, 16), attention_levels=(False, True), layers_per_block=1
)
SIZES |= dict(cross_attention_dim=8, num_heads=2, norm_num_groups=4)
AUTOENCODER = VAE(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4)
HINT = (4, 8)


def random(net: nn.Module, seed: int) -> weights.Params:
  """As a net starts, but nothing is zero: what is made depends on every part of it."""
  import jax

  rng = np.random.default_rng(seed)
  noisy = lambda a: a + rng.normal(0, 0.1, a.shape).astype(a.dtype)
  return jax.tree.map(noisy, initialize(net, seed, *net.smallest())['params'])


def pipeline(in_channels: int, seed: int = 0) -> weights.StableDiffusion:
  """Stable Diffusion in small: 2 x 2 pixels a latent, words of the captions and objects."""
  texts = [*captions.vocabulary(), *DOMAINS, *OBJECTS, 'A photo of an a,']
  words = tokenizer.learned(texts)
  text = ClipText(len(words.vocabulary), words.length, 8, 16, 1, 2)
  nets: dict[str, Any] = dict(
    unet=UNet(**SIZES, in_channels=in_channels), vae=AUTOENCODER, text_encoder=text
  )
  params = {kind: random(net, seed + k) for k, (kind, net) in enumerate(nets.items())}
  rest: dict[str, Any] = dict(tokenizer=words, schedule=NoiseSchedule(), sampler='ddim')
  return weights.StableDiffusion(**nets, params=params, **rest)


def write(folder: str | pathlib.Path) -> None:
  """sd/, inpaint/ and controlnet/ below the folder."""
  folder = pathlib.Path(folder)
  made = pipeline(4)
  weights.save_pipeline(folder / 'sd', made)
  weights.save_pipeline(folder / 'inpaint', pipeline(9))
  hint: dict[str, Any] = dict(conditioning_channels=1, conditioning_embedding_out_channels=HINT)
  control = ControlNet(**SIZES, **hint)
  start = controlnet_from_unet(control, made.params['unet'])
  weights.save('controlnet', folder / 'controlnet', control, start | _zeroed(control))


def _zeroed(control: ControlNet) -> weights.Params:
  """Random values for what is zero in a ControlNet that was not trained."""
  params = random(control, 9)
  return {name: part for name, part in params.items() if name.startswith('controlnet_')}


def main(arguments: Sequence[str]) -> int:
  parser = errors.parser('generate tiny', __doc__)
  parser.add_argument('out', type=paths.local, help='the folder to write')
  out = parser.parse_args(arguments).out
  write(out)
  print(f'wrote {out}/sd, {out}/inpaint and {out}/controlnet')
  return 0
