"""Lists the trained models that ship: car-jax zoo [NAME] [--examples FOLDER].

NAME prints a model's card; --examples draws a few pictures to try them on. Commands that take a run
take zoo:NAME too:
  car-jax predict zoo:mose-lidc-masks examples/lidc --out predicted
"""

from car_jax import errors, paths
from car_jax.errors import exit_on_user_error


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('zoo', __doc__)
  parser.add_argument('name', nargs='?', help='such as mose-lidc-masks')
  parser.add_argument('--examples', type=paths.local, help='the folder to write')
  args = parser.parse_args(arguments)
  if args.examples:
    from car_jax.datasets import examples

    print(*examples.write(args.examples), sep='\n')
    return 0
  from car_jax import hub  # imports jax

  if args.name:
    folder = hub.resolve(f'zoo:{args.name.removeprefix("zoo:")}')
    print(hub.read_card(folder), end='')
    return 0
  models = hub.zoo()
  width = max(map(len, models), default=0)
  for name, folder in models.items():
    meta = hub.Folder(folder).meta()
    size = (folder / hub.WEIGHTS).stat().st_size / 1e6
    about = f'{meta["config"]["method"]["name"]} on {meta["data"]["name"]}'
    print(f'zoo:{name:{width}}  {about}, {meta["step"]:,} steps, {size:.1f} MB')
  return 0
