"""Configs: a Python file with `get_config()`, changed on the command line by --config.key=value.

A config is data. `load` completes it with the loop's defaults and refuses keys that nothing reads;
`override` changes one value and keeps its type; `differences` tells two configs apart.
"""

import ast
import importlib.util
import inspect
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from car_jax.errors import UserError, nearest

EVALUATION = dict(eval_size=0, eval_batch=0)  # keys of data that a config may leave out
REPOSITORY = pathlib.Path(__file__).parent.parent


def defaults() -> ConfigDict:
  """What the training loop and the evaluation read; `method` and `data` have no default."""
  c = ConfigDict()
  c.steps, c.seed = 1000, 0
  c.log_every, c.eval_every, c.save_every = 100, 0, 0  # 0: only at the end
  c.keep = 2  # of the newest checkpoints, besides the best
  c.evals = ConfigDict()  # name -> dict(split, samples, metrics, ...), see evaluate/harness.py
  c.best = ''  # such as 'val/ged16:min'
  c.init = ConfigDict()  # part of the state -> 'run folder:part', see loop.graft
  c.report = ConfigDict()  # what eval.py scores when it makes the report
  return c


def load(path: str) -> ConfigDict:
  """'configs/x.py' or 'configs/x.py:variant' -> completed config of a training run; see `read`."""
  config = read(path)
  if 'sets' in config:
    raise UserError(f'{path} is a study, nothing to train\n  python eval.py --config {path}')
  return complete(config, source=str(path).partition(':')[0])


def read(path: str) -> ConfigDict:
  """What the file's get_config returns.

  A path that does not exist from the current folder is looked up from the repository's.
  Raises UserError for a missing file, a file without get_config, an unknown variant.
  """
  name, _, variant = str(path).partition(':')
  file = next((p for p in (pathlib.Path(name), REPOSITORY / name) if p.is_file()), None)
  if file is None:
    known = [f'configs/{p.name}' for p in (REPOSITORY / 'configs').glob('[!_]*.py')]
    raise UserError(f'no config file {name}\n{nearest(name, known)}')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except SyntaxError as e:
    raise UserError(f'{file}:{e.lineno}: {e.msg}') from None
  if not hasattr(module, 'get_config'):
    raise UserError(f'{file} has no get_config(); see configs/demo.py')
  takes = inspect.signature(module.get_config).parameters
  if variant and not takes:
    raise UserError(f'{name} has no variants, so none called {variant!r}\n  use {name}')
  return module.get_config(*([variant] if variant else []))


def complete(config: ConfigDict, source: str = 'config') -> ConfigDict:
  """Adds the defaults; refuses unknown top-level keys and a config without method or data."""
  c = defaults()
  if unknown := sorted(set(config) - set(c) - {'method', 'data'}):
    raise UserError(f'{source}: unknown config key {unknown[0]!r}\n{nearest(unknown[0], [*c])}')
  for key in ('method', 'data'):
    if 'name' not in config.get(key, {}):
      raise UserError(f'{source}: config.{key}.name is missing')
  try:
    c.update(config)
  except TypeError as e:  # such as 1e5 for a number of steps
    raise UserError(f'{source}: {e}') from None
  return c


def check(config: ConfigDict) -> None:
  """Raises UserError for values that no run can have."""
  for key, least in dict(seed=0, steps=0, log_every=0, eval_every=0, save_every=0, keep=1).items():
    if config[key] < least:
      raise UserError(f'config.{key} is {config[key]}; it is at least {least}')


def split_overrides(arguments: Sequence[str]) -> list[tuple[str, str]]:
  """['--config.a=1', '--config.b', '2'] -> [('a', '1'), ('b', '2')]; anything else is an error."""
  rest, pairs = list(arguments), []
  while rest:
    argument = rest.pop(0)
    if not argument.startswith('--config.'):
      raise UserError(f'unknown argument {argument!r}\n  see --help')
    key, equals, value = argument.removeprefix('--config.').partition('=')
    if not equals:
      if not rest or rest[0].startswith('--'):
        raise UserError(f'--config.{key} needs a value: --config.{key}=VALUE')
      value = rest.pop(0)
    pairs.append((key, value))
  return pairs


def override(config: ConfigDict, pairs: Sequence[tuple[str, str]]) -> ConfigDict:
  """Sets each dotted key to a value of the type it already has (an int may become a float).

  A part of config.init may be new: the method knows its parts. Raises UserError for an unknown key
  (with the nearest one) and for a value of another type.
  """
  for key, text in pairs:
    *parents, leaf = key.split('.')
    node: Any = config
    for parent in parents:
      node = node.get(parent) if isinstance(node, ConfigDict) else None
    if parents == ['init'] and isinstance(node, ConfigDict):
      node[leaf] = text
      continue
    if parents == ['data'] and leaf in EVALUATION and leaf not in node:
      node[leaf] = EVALUATION[leaf]
    if not isinstance(node, ConfigDict) or leaf not in node:
      raise UserError(f'unknown config key {key!r}\n{nearest(key, flatten(config))}')
    node[leaf] = _typed(key, text, node[leaf])
  return config


def _typed(key: str, text: str, old: Any) -> Any:
  if isinstance(old, ConfigDict):
    raise UserError(
      f'config.{key} is a group of keys; set one of them, such as {key}.{next(iter(old), "...")}'
    )
  if isinstance(old, str):
    return text
  try:
    new = ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(text, text))
  except (SyntaxError, ValueError):
    new = text
  if old is None:
    return new
  if isinstance(old, float) and type(new) is int:
    new = float(new)
  if isinstance(old, (tuple, list)) and not isinstance(new, (tuple, list)):
    new = (new,)
  if isinstance(old, (tuple, list)):
    return type(old)(new)
  if type(new) is not type(old):
    raise UserError(f'config.{key} is {type(old).__name__} (now {old!r}); {text!r} is not')
  return new


def flatten(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
  """Dotted key -> value."""
  out: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      out |= flatten(value, f'{prefix}{key}.')
    else:
      out[prefix + key] = value
  return out


def to_json(config: ConfigDict) -> str:
  return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
  return ConfigDict(json.loads(text))


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """One line per key whose value differs, as JSON sees it (a tuple equals a list)."""
  a, b = (flatten(from_json(to_json(c))) for c in (old, new))
  lines = []
  for key in sorted({*a, *b}):
    if a.get(key, '(absent)') != b.get(key, '(absent)'):
      lines.append(f'  {key}: {a.get(key, "(absent)")!r} -> {b.get(key, "(absent)")!r}')
  return lines
