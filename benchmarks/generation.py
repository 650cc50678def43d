"""What one step of generation costs at full size: python -m benchmarks.generation

Stable Diffusion 1.5 with a ControlNet: operations counted in the program (car_jax/operations.py),
scratch memory from XLA's analysis of the compiled one. Nothing is run, no weights are made. Limits:
the networks' shapes in 5 s of one core; operations of a guided step at 512 x 512 within 3 % of
2 x 1.07 TFLOP (the count of the published networks); scratch memory of a guided step of inpainting
at 1024 x 2048, attention in blocks, 12 GB. Exit status 1 beyond them.
"""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from car_jax import operations
from car_jax.generate import samplers, weights
from car_jax.generate.blocks import Compute
from car_jax.generate.clip_text import ClipText
from car_jax.generate.unet import ControlNet, UNet
from car_jax.generate.vae import VAE

SHAPES, TERAFLOP, TOLERANCE, SCRATCH = 5.0, 2 * 1.07, 0.03, 12.0
TINY: dict[str, Any] = dict(block_out_channels=(8,), attention_levels=(False,), num_heads=2)
TINY |= dict(cross_attention_dim=8, norm_num_groups=2, layers_per_block=1)
TOKENS, SCALE, HINT, FACTOR = 77, 7.5, 1, 8


def step_of(unet: UNet, control: ControlNet | None):
  """One evaluation with guidance, and the step of the sampler after it."""
  sampler = samplers.DDIM(samplers.NoiseSchedule(), 25)

  def step(params, control_params, x, kept, hint, context, i):
    twice = lambda a: jnp.concatenate([a, a])
    t = jnp.asarray(sampler.timesteps)[i]
    added = None
    if control is not None:
      added = control.apply({'params': control_params}, twice(x), t, context, twice(hint))
    seen = twice(jnp.concatenate([x, kept], -1))
    eps: Any = unet.apply({'params': params}, seen, t, context, added)
    return sampler.step(sampler.start(x), i, samplers.guided(eps, SCALE)).x

  return step


def arguments_of(
  unet: UNet, control: ControlNet | None, size: tuple[int, int], dtype: Any
) -> tuple[Any, ...]:
  """Shapes and types of what the step takes, for one image."""
  of = lambda *shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
  cast = lambda tree: jax.tree.map(lambda a: of(*a.shape, dtype=dtype), tree)
  h, w = (side // FACTOR for side in size)
  params = cast(weights.template(unet))
  control_params = cast(weights.template(control)) if control is not None else {}
  kept = of(1, h, w, unet.in_channels - unet.out_channels)
  hint, context = of(1, *size, HINT), of(2, TOKENS, unet.cross_attention_dim)
  inputs = of(1, h, w, unet.out_channels), kept, hint, context, of(dtype=jnp.int32)
  return params, control_params, *inputs


def compiled(
  unet: UNet, control: ControlNet | None, size: tuple[int, int], dtype: Any, toy: bool
) -> tuple[float, float, float]:
  """Of a step for one image: TFLOP, GB of scratch memory, seconds to compile. toy: traced only."""
  step, arguments = step_of(unet, control), arguments_of(unet, control, size, dtype)
  start = time.perf_counter()
  quick = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
  traced = jax.jit(step, compiler_options=quick).trace(*arguments)
  teraflop = float(operations.work(traced)[0]) / 1e12
  if toy:
    return teraflop, 0.0, 0.0
  executable: Any = traced.lower().compile()
  scratch = executable.memory_analysis().temp_size_in_bytes
  return teraflop, scratch / 1e9, time.perf_counter() - start


def shapes(toy: bool) -> float:
  """Seconds of one core for the shapes of all parameters of the four networks."""
  clip: dict[str, Any]
  sizes, clip = (TINY, dict(num_hidden_layers=1)) if toy else ({}, {})
  vae: dict[str, Any] = dict(block_out_channels=(8,), norm_num_groups=2) if toy else {}
  nets = UNet(**sizes), ControlNet(**sizes, conditioning_channels=HINT), VAE(**vae)
  start, count = time.process_time(), 0
  for net in (*nets, ClipText(**clip)):
    count += sum(a.size for a in jax.tree.leaves(weights.template(net)))
  taken = time.process_time() - start
  print(f'shapes of four networks, {count / 1e6:,.1f} million parameters: {taken:.1f} s of a core')
  return taken


def main(toy: bool) -> list[str]:
  timing.describe()
  slow = ['shapes of the networks'] if shapes(toy) > SHAPES else []
  sizes = TINY if toy else {}
  print('program                                   TFLOP   scratch GB   compile s')
  for dtype in (jnp.float32,) if toy else (jnp.float32, jnp.bfloat16):
    name, compute = jnp.dtype(dtype).name, Compute(dtype)
    net, inpaint = (UNet(**sizes, in_channels=n, compute=compute) for n in (4, 9))
    control = ControlNet(**sizes, conditioning_channels=HINT, compute=compute)
    small, large = (64, 64) if toy else (512, 512), (1024, 2048)
    cases = ('style', net, control, small), ('refine', inpaint, None, large)
    for what, unet, controlnet, (h, w) in cases[:1] if toy else cases:
      flops, scratch, taken = compiled(unet, controlnet, (h, w), dtype, toy)
      title = f'{what}, {h}x{w}, {name}'
      print(f'{title:38} {flops:8.3f} {scratch:12.2f} {taken:11.1f}', flush=True)
      if what == 'style' and abs(flops / TERAFLOP - 1) > TOLERANCE:
        slow.append(f'{flops:.3f} TFLOP of {title}')
      if what == 'refine' and scratch > SCRATCH:
        slow.append(f'{scratch:.1f} GB of {title}')
  return slow


if __name__ == '__main__':
  sys.exit(timing.command(main))
