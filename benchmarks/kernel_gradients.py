"""Gradients of 3 x 3 kernels, ours and XLA's own: python -m benchmarks.kernel_gradients

Milliseconds of the shortest of several runs, beside the convolution itself; float32. No limits: it
shows what `car_jax.nn.convolution.convolve` is for, on the machine at hand.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import timing
from car_jax.nn.convolution import LAYOUT, convolve

SHAPES = (  # images, height, width, channels in, channels out
  (20, 128, 128, 32, 32),
  (20, 64, 64, 64, 64),
  (4, 128, 128, 64, 64),
  (4, 128, 128, 96, 32),
  (12, 64, 64, 64, 64),
  (4, 16, 32, 512, 512),
)
REPEATS = 5


def by_xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=LAYOUT)


def ours(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return convolve(x, kernel, (1, 1), 'SAME')


def gradient(convolution: Callable) -> Callable:
  """By the kernel, of a gradient that arrives."""
  return lambda x, kernel, dy: jax.vjp(lambda k: convolution(x, k), kernel)[1](dy)[0]


def main(toy: bool) -> list[str]:
  shapes, repeats = (((1, 4, 4, 2, 2),), 0) if toy else (SHAPES, REPEATS)
  timing.describe()
  rng = np.random.default_rng(0)
  print('images, map, channels           convolution  kernel by XLA     by convolve')
  for images, height, width, inside, outside in shapes:
    draw = lambda *size: rng.standard_normal(size, dtype=np.float32)
    x, kernel = draw(images, height, width, inside), draw(3, 3, inside, outside)
    dy = draw(images, height, width, outside)
    seconds = [
      timing.compiled(by_xla, x, kernel, repeats=repeats)[1],
      timing.compiled(gradient(by_xla), x, kernel, dy, repeats=repeats)[1],
      timing.compiled(gradient(ours), x, kernel, dy, repeats=repeats)[1],
    ]
    name = f'{images} of {height}x{width}, {inside} to {outside}'
    print(f'{name:28}' + ''.join(f'{1e3 * s:12.1f} ms' for s in seconds), flush=True)
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
