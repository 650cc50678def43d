"""Lists the options of a config: car-jax options configs/demo.py [--config.KEY=VALUE]."""

from car_jax import config as configs
from car_jax import errors, option_tables, options
from car_jax.errors import exit_on_user_error


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('options', __doc__)
  parser.add_argument('config', help='a file such as configs/car_lidc.py, or file:variant')
  args, rest = parser.parse_known_args(arguments)
  config = configs.load(args.config, configs.split_overrides(rest))
  print(option_tables.terminal(options.leaves(configs.Run, config.to_dict())))
  return 0
