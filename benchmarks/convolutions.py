"""Convolutions and their gradients, ours and XLA's own: python -m benchmarks.convolutions

Milliseconds of the shortest of several runs, float32. No limits: it shows what
`car_jax.nn.convolution.convolve` is for, on the machine at hand.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import timing
from car_jax.nn.convolution import LAYOUT, convolve

SHAPES = (  # images, height, width, channels in and out (0: each alone), side of the kernel, stride
  (20, 128, 128, 32, 32, 3, 1),
  (20, 64, 64, 64, 64, 3, 1),
  (4, 128, 128, 64, 64, 3, 1),
  (4, 128, 128, 96, 32, 3, 1),
  (12, 64, 64, 64, 64, 3, 1),
  (4, 16, 32, 512, 512, 3, 1),
  (4, 64, 64, 256, 0, 3, 1),
  (4, 64, 64, 64, 0, 3, 2),
  (4, 32, 32, 120, 0, 5, 1),
  (4, 24, 48, 96, 0, 7, 1),
)
TOY = (1, 4, 4, 2, 2, 3, 1), (1, 4, 4, 2, 0, 3, 2)
REPEATS = 3


def gradient(convolution: Callable, argument: int) -> Callable:
  """By the image (0) or the kernel (1), of a gradient that arrives."""
  return lambda x, kernel, dy: jax.vjp(convolution, x, kernel)[1](dy)[argument]


def milliseconds(shape: tuple[int, ...], repeats: int) -> list[float]:
  """The convolution, its gradient by the image and by the kernel, of each by XLA and ours."""
  images, height, width, inside, outside, side, stride = shape
  rng = np.random.default_rng(0)
  draw = lambda *size: rng.standard_normal(size, dtype=np.float32)
  x = draw(images, height, width, inside)
  kernel = draw(side, side, inside if outside else 1, outside or inside)
  dy = draw(images, -(-height // stride), -(-width // stride), outside or inside)
  kw = dict(dimension_numbers=LAYOUT, feature_group_count=1 if outside else inside)
  bind = lambda form: lambda x, kernel: form(x, kernel, (stride, stride), 'SAME', **kw)
  forms = bind(jax.lax.conv_general_dilated), bind(convolve)
  seconds = [timing.compiled(form, x, kernel, repeats=repeats)[1] for form in forms]
  for argument in (0, 1):
    for form in forms:
      run = gradient(form, argument)
      seconds.append(timing.compiled(run, x, kernel, dy, repeats=repeats)[1])
  return [1e3 * s for s in seconds]


def main(toy: bool) -> list[str]:
  timing.describe()
  print('By XLA and by convolve, ms:      convolution       by the image      by the kernel')
  for shape in TOY if toy else SHAPES:
    images, height, width, inside, outside, side, stride = shape
    name = f'{images} of {height}x{width}, {inside} ' + (f'to {outside}' if outside else 'alone')
    name += f', {side}x{side}' + (f' by {stride}' if stride > 1 else '')
    cells = milliseconds(shape, 0 if toy else REPEATS)
    print(f'{name:30}' + ''.join(f'{ms:9.1f}' for ms in cells), flush=True)
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
