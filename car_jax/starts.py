"""What a run starts from: parts of other runs, by config.init."""

from typing import Any

from ml_collections import ConfigDict

from car_jax import checkpoints, sharding
from car_jax.errors import UserError


def graft(state: Any, init: ConfigDict, mesh: Any) -> Any:
  """Replaces parts of a fresh state by parts of checkpoints.

  init: {'calnet': 'runs/calnet:net'} takes params and batch_stats of `net` there for `calnet` here.
  Raises UserError where a part is missing or its arrays have other names or shapes.
  """
  for part, where in init.items():
    path, _, theirs = str(where).rpartition(':')
    ours, name = getattr(state, part, None), theirs if path else part
    if not hasattr(ours, 'params'):
      raise UserError(f'config.init: this method has no part {part!r}')
    take = lambda saved, step, name=name: checkpoints.part_of(saved, step, name)
    try:
      net = checkpoints.read(path or theirs, '', take)
    except UserError as e:
      text = f'config.init.{part}: {e}\n  train it first, or set it to FOLDER:net'
      raise UserError(text) from None
    net = net if isinstance(net, dict) else {}
    for group in ('params', 'batch_stats'):
      want, got = getattr(ours, group), net.get(group) or {}
      if (a := checkpoints.shapes(want)) != (b := checkpoints.shapes(got)):
        odd = sorted(set(a.items()) ^ set(b.items()))[0]
        raise UserError(
          f'config.init.{part}: {where} does not fit, first {group}/{odd[0]} {odd[1]}'
        )
      ours = ours.replace(**{group: sharding.place_state(got, mesh)})
    state = state.replace(**{part: ours})
  return state
