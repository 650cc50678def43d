"""What every benchmark shares: the machine, the shortest of several runs, limits, the command line.

Limits in seconds are those of two cores that do RATE; a slower machine has more time.
"""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from car_jax.errors import exit_on_user_error

RATE = 56e9  # floating-point operations a second, of 3x3 convolutions in float32


def describe() -> None:
  """Prints the device, the cores, jax's version, the machine's rate and how busy it is."""
  import jax

  device = jax.devices()[0]
  print(
    f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}, '
    f'{rate() / 1e9:,.0f} GFLOP/s, load {os.getloadavg()[0]:.1f}'
  )


def shortest(work: Callable[[], Any], repeats: int) -> float:
  """Seconds of the shortest run: other work on the machine only ever adds time."""
  import jax

  best = float('inf')
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(work())
    best = min(best, time.perf_counter() - start)
  return best


@functools.cache
def rate() -> float:
  """Operations a second, of a 3x3 convolution of 64 channels in the shortest of several runs."""
  import jax
  import jax.numpy as jnp

  images, size, channels = 32, 64, 64
  x, kernel = jnp.ones((images, size, size, channels)), jnp.ones((3, 3, channels, channels))
  axes = ('NHWC', 'HWIO', 'NHWC')
  convolved = jax.jit(
    lambda x: jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=axes)
  )
  shortest(lambda: convolved(x), 1)
  return 2 * 9 * x.size * channels / shortest(lambda: convolved(x), 5)


def allowed(limit: float) -> float:
  """The limit of this machine, in the unit of `limit`, a time of the machine that does RATE."""
  return limit * max(1.0, RATE / rate())


def compiled(function: Callable, *arguments: Any, repeats: int) -> tuple[float, float]:
  """-> seconds of (compilation with the first call, the shortest of the calls after it).

  repeats=0: traced only, neither compiled nor run; the seconds are 0.
  """
  import jax

  if not repeats:
    jax.eval_shape(function, *arguments)
    return 0.0, 0.0
  program = jax.jit(function)
  work = lambda: program(*arguments)
  return shortest(work, 1), shortest(work, repeats)


def peak_bytes() -> int:
  """The largest resident memory of this process so far."""
  import resource

  most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return most if sys.platform == 'darwin' else most * 1024  # KiB on Linux


@exit_on_user_error
def command(main: Callable[..., list[str]], arguments: list[str] | None = None) -> int:
  """Runs main(toy, *names), which returns what was beyond its limits; 1 if anything was.

  --toy: tiny sizes, no limits, steps traced and not compiled, to see that a benchmark still runs.
  """
  words = sys.argv[1:] if arguments is None else arguments
  slow = main('--toy' in words, *(w for w in words if w != '--toy'))
  for what in () if '--toy' in words else slow:
    print(f'beyond the limit: {what}', file=sys.stderr)
  return int(bool(slow) and '--toy' not in words)
