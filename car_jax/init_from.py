"""What a run starts from: parts of other runs, by config.init."""

from typing import Any

from ml_collections import ConfigDict

from car_jax import checkpoints, hub
from car_jax.errors import UserError, naming
from car_jax.methods.base import Method
from car_jax.methods.train_state import nets, saved_variables


def untaught(method: Method, init: ConfigDict) -> list[str]:
  """A line for each net that is to come from another run, and is named by no config.init."""
  return [
    f'{part} stays as it is drawn, a net that has learnt nothing; --config.init.{part}=FOLDER:net '
    'takes a trained one'
    for part in method.given_parts
    if part not in init
  ]


def init_from(state: Any, init: ConfigDict) -> Any:
  """Replaces parts of a fresh state, on the host, by parts of checkpoints.

  init: {'calnet': 'runs/calnet:net'} takes params and batch_stats of `net` there for `calnet` here,
  the averaged parameters where that run has them; zoo:NAME and hf://OWNER/NAME are runs too. Raises
  UserError where a part is missing, or its arrays have other names or shapes.
  """
  for part, where in init.items():
    path, _, theirs = str(where).rpartition(':')
    if path in ('zoo', 'hf'):
      path, theirs = str(where), part
    name = theirs if path else part
    if (ours := nets(state).get(part)) is None:
      raise UserError(f'config.init: this method has no part {part!r}')
    take = lambda run, step, name=name: checkpoints.part_of(run, step, name)
    with naming(f'config.init.{part}', 'train it first, or set it to FOLDER:net'):
      variables = saved_variables(hub.read(path or theirs, '', take))
    for group, value in variables.items():
      want, got = checkpoints.shapes(getattr(ours, group)), checkpoints.shapes(value)
      if odd := sorted(set(want.items()) ^ set(got.items())):
        raise UserError(
          f'config.init.{part}: {where} does not fit, first {group}/{odd[0][0]} {odd[0][1]}'
        )
    state = state.replace(**{part: ours.with_variables(**variables)})
  return state
