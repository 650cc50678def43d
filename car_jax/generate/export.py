"""car-jax generate export RUN --out FOLDER: a run's networks in the layout of diffusers.

Of a run of the method `controlnet` FOLDER is a ControlNet, of `diffusion` a whole pipeline for text
to image. Where the optimizer keeps an average of the parameters, that is what is written.
"""

import pathlib
from collections.abc import Sequence

from car_jax import errors, paths
from car_jax.errors import UserError


def main(arguments: Sequence[str]) -> int:
  parser = errors.parser('generate export', __doc__)
  parser.add_argument('run', help='folder of the run')
  parser.add_argument('--out', required=True, type=paths.local, help='the folder to write')
  parser.add_argument('--step', default='', help='latest or a number (default: the latest)')
  args = parser.parse_args(arguments)
  print(f'{args.run}, step {export(args.run, args.out, args.step):,} -> {args.out}')
  return 0


def export(run: str | pathlib.Path, out: pathlib.Path, wish: str = '') -> int:
  """Writes the folder and returns the checkpoint's step. Raises UserError."""
  from car_jax import checkpoints, loop
  from car_jax import config as configs
  from car_jax.data import options, sources

  def use(saved: checkpoints.Checkpoints, step: int) -> int:
    meta = saved.meta(step)
    config = configs.saved(meta['config'])
    method = loop.build_method(config, sources.from_json(meta['data']), 1)
    if not hasattr(method, 'export'):
      raise UserError(
        f'{run} is of the method {config.method.name!r}, which has nothing to export\n'
        '  controlnet and diffusion have'
      )
    state, _ = saved.restore(step, None)
    method.export(state, options.of(config.data), out)
    return step

  return checkpoints.read(run, wish, use)
