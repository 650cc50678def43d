"""Configs: a Python file with `get_config()`, changed on the command line by --config.key=value.

A config is data. `load` completes it with the defaults of all options (options.py) and refuses keys
that nothing reads; `override` changes one value; `differences` tells two configs apart.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import json
import pathlib
import sysconfig
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from car_jax import files, lookup, options, renamed
from car_jax.errors import UserError, naming, nearest, nearest_key, reading, reason
from car_jax.evaluate.options import Evaluation
from car_jax.options import Count, Group, Part, Positive, Range, Size
from car_jax.published import Score

PACKAGE = pathlib.Path(__file__).parent
LIBRARIES = tuple(sysconfig.get_paths()[k] for k in ('stdlib', 'purelib', 'platlib'))


@dataclasses.dataclass(frozen=True)
class Run(Group):
  """A training run: what the loop reads, and the entries of its parts."""

  method: Annotated[Mapping[str, Any], Part('method')]
  """The training method and its nets."""
  data: Annotated[Mapping[str, Any], Part('data set')]
  """The data set and how its images are read."""
  steps: Count = 1000
  """Steps of training in all."""
  base_batch: Count = 0
  """The batch that rates and numbers of steps are meant for, which then follow data.batch; 0 for
  none: they are what they are."""
  lr_scaling: Literal['linear', 'sqrt'] = 'linear'
  """With base_batch: rates grow with the batch (arXiv 1706.02677), or its root (2205.10287)."""
  seed: Annotated[int, Range(0, 2**32 - 1)] = 0
  """Of all that is drawn: order, augmentation, initial weights, samples."""
  log_every: Count = 100
  """Steps between lines of losses; 0 for the last step only."""
  eval_every: Count = 0
  """Steps between evaluations; 0 for the last step only."""
  save_every: Count = 0
  """Steps between checkpoints; 0 for the last step only."""
  fsdp: bool = False
  """Share the large arrays of parameters and optimizers among the devices, instead of a copy on
  each: less memory, more communication."""
  keep: Positive = 2
  """Newest checkpoints that are kept, besides the best."""
  evals: dict[str, Evaluation] = dataclasses.field(default_factory=dict)
  """Evaluations during training, by names of your own."""
  best: str = ''
  """Which score chooses the best checkpoint, such as val/ged16:min; the last of equal ones."""
  init: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  """Parts of other runs to start from, such as init.net=runs/other:net."""
  writers: tuple[Literal['tensorboard', 'wandb'], ...] = ('tensorboard',)
  """What numbers, pictures and the config are written to besides metrics.jsonl."""
  images: Annotated[int, Range(0, 64)] = 2
  """Images of each evaluation that are written with their readers and samples."""
  overview: Count = 0
  """Lines of the table of parameters at the start; all of it is in parameters.txt; 0 for none."""
  profile: Size | None = None
  """First and last step of a trace for TensorBoard or XProf, in the folder profile of the run."""
  report: Evaluation = dataclasses.field(default_factory=dict)  # type: ignore[assignment]
  """What car-jax eval scores."""
  published: dict[str, Score] = dataclasses.field(default_factory=dict)
  """What is published of such a run, by names of your own; reports print it beside."""


def load(path: str, changes: Sequence[tuple[str, str]] = ()) -> ConfigDict:
  """'configs/x.py' or 'configs/x.py:variant' -> completed config of a training run; see `read`.

  changes: as split_overrides gives them; see `override`.
  """
  config = read(path)
  if (use := command(config)) != 'train':
    what = 'is a study' if use == 'eval' else 'generates'
    raise UserError(f'{path} {what}, nothing to train\n  car-jax {use} --config {path}')
  with naming(str(path).partition(':')[0]):
    full = complete(renamed_parts(config.to_dict(), changes))
  return override(full, changes)


def command(config: Mapping[str, Any]) -> str:
  """The command that a config is for: train, eval of a study, generate style or generate ood."""
  if 'sets' in config:
    return 'eval'
  if 'method' in config or 'weights' not in config:
    return 'train'
  return 'generate style' if 'controlnet' in config else 'generate ood'


def shipped() -> dict[str, pathlib.Path]:
  """Name -> file of the configs that come with the library."""
  return {p.stem: p for p in sorted((PACKAGE / 'configs').glob('[!_]*.py'))}


def path_of(name: str) -> str:
  """FILE or FILE:VARIANT of a config that ships -> configs/FILE.py:VARIANT."""
  file, colon, variant = name.partition(':')
  return f'configs/{file}.py{colon}{variant}'


def find(name: str) -> pathlib.Path:
  """The file of a config: from the current folder, or one that ships, such as configs/demo.py.

  One that ships may be named without folder and ending. Raises UserError.
  """
  with reading(name[:200], 'a config'):
    places = [pathlib.Path(name), PACKAGE / name]
    if bare := name.isidentifier():
      places.append(PACKAGE / 'configs' / f'{name}.py')
    file = next((p for p in places if p.is_file()), None)
  if file is None:
    if name and pathlib.Path(name).exists():
      files.check_regular(name)
    known = shipped() if bare else [f'configs/{known}.py' for known in shipped()]
    raise UserError(f'no config file {name}\n{nearest(name, known)}')
  return file


def read(path: str) -> ConfigDict:
  """What the get_config of a file that `find` finds returns.

  Raises UserError for a missing file, a file without get_config, an unknown variant.
  """
  name, _, variant = str(path).partition(':')
  file = find(name)
  if file.suffix != '.py':
    raise UserError(f'{file} is no Python file; a config is one, such as configs/demo.py')
  spec: Any = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
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


def complete(config: Mapping[str, Any], schema: type = Run) -> ConfigDict:
  """A config with every key of its schema. Raises UserError: unknown key, impossible value."""
  given = config.to_dict() if isinstance(config, ConfigDict) else config
  return ConfigDict(options.completed(schema, given))


def saved(config: Mapping[str, Any]) -> ConfigDict:
  """A run's config as it was kept with it, by this version or one before -> completed."""
  given = renamed.modern(config.to_dict() if isinstance(config, ConfigDict) else dict(config))
  lookup.check_known({k: v for k, v in given.items() if k != 'init'})
  return complete(given)


def check(config: ConfigDict) -> ConfigDict:
  """The config, completed. Raises UserError for values that no run can have or JSON cannot keep."""
  full = complete(config)
  to_json(full)
  return full


@contextlib.contextmanager
def setting_up(part: str) -> Iterator[None]:
  """Whatever goes wrong inside is the fault of config.`part`, of which all in there is made.

  Values that do not go together raise nearly anything, anywhere in a net: nothing is listed. The
  message names the last line that is neither Python's own nor another library's.
  """
  try:
    yield
  except (UserError, OSError):
    raise
  except Exception as e:
    ours = [f for f in traceback.extract_tb(e.__traceback__) if not _foreign(f.filename)]
    place = f' in {pathlib.Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours else ''
    raise UserError(f'nothing can be made of config.{part} ({reason(e)}{place})') from e


def _foreign(file: str) -> bool:
  return not file.startswith(str(PACKAGE)) and file.startswith(('<', *LIBRARIES))


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


def override(
  config: ConfigDict, pairs: Sequence[tuple[str, str]], schema: type = Run
) -> ConfigDict:
  """A completed config with each dotted key set to what its option allows.

  An entry of a dict of the user's, such as config.init, may be new. Where another part is chosen by
  its name, defaults of the one before give way to its own. Raises UserError for an unknown key
  (with the nearest one) and for a value that cannot be.
  """
  given = renamed_parts(options.beyond_defaults(schema, config.to_dict()), pairs)
  given = complete(given, schema).to_dict()
  for key, text in pairs:
    known = options.leaves(schema, given)
    *parents, leaf = key.split('.')
    kind: Any = known[key].type if key in known else None
    if kind is None and '.'.join(parents) in known and isinstance(_at(given, parents), dict):
      kind = Any  # one more of a dict by names of the user's, such as config.init
    if kind is None and text.strip() == '{}' and key in options.emptied(schema, given):
      kind = Any
    if kind is None:
      if inner := [k for k in known if k.startswith(f'{key}.')]:
        raise UserError(f'config.{key} is a group of keys; set one of them, such as {inner[0]}')
      above = ('.'.join(parents[:k]) for k in range(1, len(parents) + 1))
      if unset := next((k for k in above if k in known and _at(given, k.split('.')) is None), ''):
        raise UserError(
          f'config.{unset} is not set, so it has no {key!r}\n  set it in a config file'
        )
      raise UserError(f'unknown config key {key!r}\n{renamed.hint(key) or nearest_key(key, known)}')
    _at(given, parents)[leaf] = value = options.parsed(key, kind, text)
    if isinstance(value, dict):  # the next key may be one of its own
      given = complete(given, schema).to_dict()
  return complete(given, schema)


def _at(tree: dict[str, Any], keys: Sequence[str]) -> Any:
  return functools.reduce(lambda node, key: node[key], keys, tree)


def renamed_parts(given: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
  """A config with other parts chosen by `NAME.name=..`, before their options are completed."""
  for key, text in pairs:
    *parents, leaf = key.split('.')
    if leaf == 'name':
      node: Any = given
      for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
      if isinstance(node, dict):
        node['name'] = text
  return given


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


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
  """One line per key whose value differs, as JSON sees it (a tuple equals a list)."""
  a, b = (flatten(ConfigDict(json.loads(to_json(c)))) for c in (old, new))
  lines = []
  for key in sorted({*a, *b}):
    if a.get(key, '(absent)') != b.get(key, '(absent)'):
      lines.append(f'  {key}: {a.get(key, "(absent)")!r} -> {b.get(key, "(absent)")!r}')
  return lines
