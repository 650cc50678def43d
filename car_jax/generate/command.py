"""What `style` and `ood` share: the command line, checks before the first weight, the images."""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol

from car_jax import config as configs
from car_jax import errors, files, option_tables, options, paths, progress
from car_jax.errors import UserError, naming, reading
from car_jax.generate import programs, records, sets, weights
from car_jax.generate.options import Generation
from car_jax.generate.samplers import SAMPLERS, NoiseSchedule, Sampler
from car_jax.interrupt import Interrupt, Stopped

Job = tuple[int, str]  # index, domain or object


@dataclasses.dataclass(frozen=True)
class Request:
  """What the command line says."""

  options: Any
  out: pathlib.Path
  indices: range


class Generator(Protocol):
  """What makes images of a kind."""

  @property
  def groups(self) -> dict[str, dict[str, Any]]:
    """The domains or objects, and their fields of the index."""

  def settings(self) -> dict[str, Any]:
    """What images depend on, see `settings`."""

  def loaded(self, stop: Interrupt) -> tuple[int, Callable[[Sequence[Job]], Iterator[Any]]]:
    """Reads the weights: how many jobs go together, and what makes these, in order."""


def parse(arguments: Sequence[str], name: str, about: str, schema: type) -> Request | None:
  """Parsed arguments; None where only the options were to be listed. Raises UserError."""
  parser = errors.parser(f'generate {name}', about)
  add = parser.add_argument
  add('--config', required=True, help=f'a file such as configs/genval_{name}.py')
  add('--out', type=paths.local, help='folder of the set; images that are there are not made again')
  add('--start', type=int, default=0, help='the first image of each domain or object, from 0')
  add('--stop', type=int, help='the one after the last (default: config.count)')
  add('--options', action='store_true', help='list all options of the config, and make nothing')
  args, rest = parser.parse_known_args(arguments)
  config = load(args.config, configs.split_overrides(rest), schema)
  if args.options:
    print(option_tables.terminal(options.leaves(schema, config.to_dict())))
    return None
  if args.out is None or not str(args.out).strip():
    raise UserError('--out is missing, the folder of the set\n  such as --out runs/generated')
  made = with_faults(options.instance(schema, config.to_dict()))
  stop = made.count if args.stop is None else args.stop
  if not 0 <= args.start < stop <= made.count:
    raise UserError(
      f'--start {args.start} --stop {stop}: no images of 0 to {made.count - 1}\n'
      f'  expected 0 <= start < stop <= {made.count}, which is config.count'
    )
  return Request(made, args.out, range(args.start, stop))


def load(path: str, pairs: Sequence[tuple[str, str]], schema: type) -> Any:
  """A config file with overrides, completed. Raises UserError."""
  config = configs.read(path)
  if {'method', 'sets'} & {*config}:
    what = 'a study' if 'sets' in config else 'a training run'
    raise UserError(f'{path} is {what}, nothing to generate\n  such as configs/genval_style.py is')
  with naming(path):
    return configs.override(configs.complete(config, schema), pairs, schema)


def with_faults(made: Any) -> Any:
  """The options; of `reference` with every fault that is listed."""

  def changed(group: Any, keys: Sequence[str], value: Any) -> Any:
    key, *more = keys
    return dataclasses.replace(
      group, **{key: changed(getattr(group, key), more, value) if more else value}
    )

  for key, value in made.FAULTS.items() if made.reference else ():
    made = changed(made, key.split('.'), value)
  return made


def settings(made: Generation, scenes: Any, sampler: str, marks: dict[str, str]) -> dict[str, Any]:
  """Whatever an image depends on besides its number, its seed and its prompt.

  marks: fingerprints of the weights.
  """
  plain = {k: v for k, v in dataclasses.asdict(made).items() if k not in made.UNRECORDED}
  plain |= dict(sampler=sampler, dtype=programs.cast(made.dtype).name)
  return plain | {'scenes': scenes.settings(), 'weights': marks}


def fingerprint(folder: pathlib.Path, kinds: Iterable[str]) -> str:
  """Of the files that a pipeline's networks, tokenizer and scheduler are read from."""
  crc = 0
  for kind in kinds:
    path = weights.weight_file(kind, folder / kind if (folder / kind).is_dir() else folder)
    parts = [path.parent / 'config.json', path]
    if path.suffix == '.json':
      places = files.read_json(path, keys=('weight_map',))['weight_map']
      parts += [path.parent / name for name in sorted({*map(str, dict(places).values())})]
    crc = functools.reduce(crc_of, parts, crc)
  for part in ('tokenizer', 'scheduler'):
    inside = (folder / part).glob('*') if (folder / part).is_dir() else ()
    crc = functools.reduce(crc_of, sorted(p for p in inside if p.is_file()), crc)
  return f'{crc:08x}'


def crc_of(crc: int, path: pathlib.Path) -> int:
  """CRC-32 of a file's bytes, after those before."""
  files.check_regular(path)
  with reading(path, 'weights'), path.open('rb') as file:
    while data := file.read(2**24):
      crc = zlib.crc32(data, crc)
  return crc


def sampler_of(
  made: Generation, schedule: NoiseSchedule, name: str, steps: int, key: str, strength: float = 1.0
) -> Sampler:
  """Raises UserError, which names the option `key`, for numbers of steps that cannot be."""
  if made.genval_steps:
    schedule = dataclasses.replace(schedule, spacing='genval')
  make: Any = SAMPLERS[name]
  with naming(f'config.{key}'):
    return make(schedule, steps, strength=strength)


def check_side(key: str, side: int, multiple: int) -> None:
  """Raises UserError for a side that the networks cannot halve as often as they do."""
  if side < multiple or side % multiple:
    near = sorted({max(multiple, side // multiple * multiple), -(-side // multiple) * multiple})
    text = ' or '.join(map(str, near))
    raise UserError(f'{key} is {side}\n  these networks take multiples of {multiple}: {text}')


def folder_of(text: str, key: str, what: str) -> pathlib.Path:
  """Raises UserError where the option is empty or names nothing."""
  if not text:
    raise UserError(f'config.{key} is empty, {what}\n  --config.{key}=PATH; see docs/generate.md')
  if not pathlib.Path(text).exists():
    raise UserError(f'config.{key}: no file or folder {text}\n  {what}; see docs/generate.md')
  return pathlib.Path(text)


def todo(writer: records.Writer, indices: range, groups: Iterable[str]) -> list[Job]:
  """What is missing, image by image, each in all domains or of all objects."""
  missing = {group: {*writer.missing(group, indices)} for group in groups}
  return [(i, group) for i in indices for group in missing if i in missing[group]]


def main(
  arguments: Sequence[str],
  kind: Literal['style', 'ood'],
  about: str,
  schema: type,
  opened: Callable[[Any], Generator],
) -> int:
  """A generator's command -> exit status. opened: its options -> what makes images."""
  request = parse(arguments, kind, about, schema)
  if request is None:
    return 0
  maker = opened(request.options)
  how = dict(generator='diffusion', seed=request.options.seed, settings=maker.settings())
  writer = records.Writer(request.out, kind, groups=maker.groups, **how)
  return generate(request, writer, todo(writer, request.indices, maker.groups), maker.loaded)


def generate(
  request: Request,
  writer: records.Writer,
  jobs: Sequence[Job],
  loaded: Callable[[Interrupt], tuple[int, Callable[[Sequence[Job]], Iterator[Any]]]],
) -> int:
  """Makes and writes the jobs -> exit status. Prints what became of the set. loaded: a
  Generator's."""
  kind, status = writer.kind, 0
  with Interrupt() as stop:
    try:
      if jobs:
        size, make = loaded(stop)
        done = progress.line(len(jobs))
        for chunk in (jobs[k : k + size] for k in range(0, len(jobs), size)):
          for (index, group), image in zip(chunk, make(chunk), strict=True):
            writer.add(group, index, image)
            done(1)
            if stop.asked():
              raise Stopped
    except Stopped:
      status = stop.status
      print('stopped; the same command goes on')
  items = [item for item in sets.write_index(request.out) if item.kind == kind]
  print('\n'.join(sets.acceptance(items)))
  print(f'{request.out / records.INDEX}\nnext: car-jax generate look {request.out}')
  return status
