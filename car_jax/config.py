"""Configs: a Python file with `get_config()`, changed on the command line by --config.key=value.

A config is data. `load` completes it with the loop's defaults and refuses keys that nothing reads;
`override` changes one value and keeps its type; `differences` tells two configs apart.
"""

import ast
import contextlib
import importlib.util
import inspect
import json
import math
import pathlib
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from car_jax import files
from car_jax.errors import UserError, nearest, reading, reason

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
  c.init = ConfigDict()  # part of the state -> 'run folder:part', see starts.graft
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
  with reading(name[:200], 'a config'):
    file = next((p for p in (pathlib.Path(name), REPOSITORY / name) if p.is_file()), None)
  if file is None:
    if name and pathlib.Path(name).exists():
      files.check_regular(name)
    known = [f'configs/{p.name}' for p in (REPOSITORY / 'configs').glob('[!_]*.py')]
    raise UserError(f'no config file {name}\n{nearest(name, known)}')
  if file.suffix != '.py':
    raise UserError(f'{file} is no Python file; a config is one, such as configs/demo.py')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  with running(file):
    spec.loader.exec_module(module)
  if not callable(getattr(module, 'get_config', None)):
    raise UserError(f'{file} has no get_config(); see configs/demo.py')
  takes = inspect.signature(module.get_config).parameters
  if variant and not takes:
    raise UserError(f'{name} has no variants, so none called {variant!r}\n  use {name}')
  with running(file):
    config = module.get_config(*([variant] if variant else []))
  if not isinstance(config, ConfigDict):
    kind = type(config).__name__
    raise UserError(
      f'{file}: get_config() returns a {kind}; it must be an ml_collections.ConfigDict'
    )
  return config


@contextlib.contextmanager
def running(file: pathlib.Path) -> Iterator[None]:
  """Whatever a config raises is told with the place in the file; it is the user's own code."""
  try:
    yield
  except UserError:
    raise
  except SyntaxError as e:
    raise UserError(f'{e.filename or file}:{e.lineno}: {e.msg}') from e
  except (Exception, SystemExit) as e:
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(file)]
    place = f'{file}:{lines[-1]}' if lines else f'{file}'
    raise UserError(f'{place}: {type(e).__name__}: {e}') from e


def complete(config: ConfigDict, source: str = 'config') -> ConfigDict:
  """Adds the defaults; refuses unknown top-level keys and a config without method or data."""
  c = defaults()
  for key in ('method', 'data'):
    if not isinstance(config.get(key, ConfigDict()), ConfigDict):
      raise UserError(f'{source}: config.{key} is {config[key]!r}; it is a dict with a name')
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


# The least and the most that a value may be; whole numbers where the bounds are. A key with a star
# is that of every group of method or data, such as data.size and data.target.size.
MOST = 2**31 - 1  # a state counts its steps in 32 bits
RANGES: dict[str, tuple[float, float]] = {
  **dict.fromkeys(('steps', 'log_every', 'eval_every', 'save_every'), (0, MOST)),
  **{'seed': (0, 2**32 - 1), 'keep': (1, MOST)},
  **dict.fromkeys(('data.batch', 'data.eval_batch'), (1, MOST)),
  **{
    'data.eval_size': (0, MOST),
    'data.*.size': (0, MOST),
    'data.threads': (0, 1024),
    'data.rotate': (0.0, 360.0),
  },
  **dict.fromkeys(('data.*.scales', 'data.*.scale', 'data.*.zoom'), (1e-3, 1e3)),
  **dict.fromkeys(('method.*.widths', 'method.*.features', 'method.*.hidden'), (1, 2**20)),
  **dict.fromkeys(('method.*.depths', 'method.*.blocks'), (0, 2**12)),
  **dict.fromkeys(('method.*.lr', 'method.*.weight_decay'), (0.0, 1e3)),
  **dict.fromkeys(('method.*.b1', 'method.*.b2', 'method.*.momentum'), (0.0, 1.0)),
}


def check(config: ConfigDict) -> None:
  """Raises UserError for values that no run can have: not finite, too large, out of RANGES."""
  if 'batch' not in config.data:
    raise UserError('config.data.batch is missing')
  for key in ('evals', 'init', 'report'):
    if not isinstance(config[key], ConfigDict):
      raise UserError(f'config.{key} is {config[key]!r}; it is a dict of entries')
  for name, spec in config.evals.items():
    if not isinstance(spec, ConfigDict):
      raise UserError(f'config.evals.{name} is {spec!r}; it is a dict such as dict(split=...)')
  for key, value in flatten(config).items():
    anywhere = f'{key.partition(".")[0]}.*.{key.rpartition(".")[2]}'
    _check_value(key, value, RANGES.get(key) or RANGES.get(anywhere))
  to_json(config)


def _check_value(key: str, x: Any, bounds: tuple[float, float] | None) -> None:
  """Raises UserError for a number that is not finite, beyond 64 bits or out of bounds."""
  if isinstance(x, (tuple, list)):
    for part in x:
      _check_value(key, part, bounds)
  elif isinstance(x, bool) or not isinstance(x, (int, float, complex)):
    if bounds and x is not None:
      raise UserError(f'config.{key} is {x!r}; it is a number')
  elif isinstance(x, complex) or not math.isfinite(x):
    raise UserError(f'config.{key} is {x}; it is a finite number')
  elif isinstance(x, int) and not -(2**63) <= x < 2**63:
    raise UserError(f'config.{key} is {x}; numbers have at most 64 bits')
  elif bounds and isinstance(bounds[0], int) and not isinstance(x, int):
    raise UserError(f'config.{key} is {x}; it is a whole number')
  elif bounds and x < bounds[0]:
    raise UserError(f'config.{key} is {x}; it is at least {bounds[0]}')
  elif bounds and x > bounds[1]:
    raise UserError(f'config.{key} is {x}; it is at most {bounds[1]:,}')


@contextlib.contextmanager
def setting_up(part: str) -> Iterator[None]:
  """Whatever goes wrong inside is the fault of config.`part`, of which all in there is made.

  Values that do not go together raise nearly anything, anywhere in a net: nothing is listed. The
  message names the line of ours that failed.
  """
  try:
    yield
  except (UserError, OSError):
    raise
  except Exception as e:
    frames = [f for f in traceback.extract_tb(e.__traceback__) if str(REPOSITORY) in f.filename]
    ours = [f for f in frames if '.venv' not in f.filename]
    place = f' in {pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours else ''
    raise UserError(f'nothing can be made of config.{part} ({reason(e)}{place})') from e


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
  except (SyntaxError, ValueError, MemoryError, RecursionError):
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
  """Raises UserError for a value that JSON has no form of: it could not be kept with a run."""
  try:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)
  except (TypeError, ValueError) as e:
    for key, value in flatten(config).items():
      try:
        json.dumps(value)
      except (TypeError, ValueError):
        raise UserError(
          f'config.{key} is {value!r}\n  a config holds numbers, texts, tuples and dicts of them'
        ) from e
    raise


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
