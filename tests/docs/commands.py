"""Lines of a shell as the pages have them: run in this process, or checked by their own parsers."""

import argparse
import contextlib
import importlib
import importlib.util
import pathlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

from car_jax import __main__ as program
from car_jax import config as configs
from car_jax.datasets import prepare
from car_jax.errors import UserError
from car_jax.reliability import study_options

ROOT = pathlib.Path(__file__).parents[2]
COMMAND = re.compile(r'^(car-jax|make|python|pip) ', re.MULTILINE)
ANY = ('configs/smoke.py:supervised', 'configs/segmenters_cityscapes.py', 'configs/sac_gta5.py')


def lines(text: str) -> list[list[str]]:
  """Commands of a block as words, without comments; what may be left out [in brackets] is there."""
  joined = text.replace('\\\n', ' ')
  words = (shlex.split(line, comments=True) for line in joined.splitlines())
  return [w for w in words if w]


def run(line: str | list[str]) -> None:
  """A car-jax command, or one of car_jax's modules; it has to succeed."""
  (words,) = lines(line) if isinstance(line, str) else (line,)
  main, arguments = found(words)
  if main is not None:
    assert main(arguments) == 0, shlex.join(words)


def check(words: list[str]) -> None:
  """The arguments are ones that the command takes. Raises UserError or SystemExit."""
  main, arguments = found(words)
  if main is None:
    return
  name = words[1] if words[0] == 'car-jax' else ''
  if name == 'prepare':
    prepare.parse(arguments)
  elif name == 'generate' and arguments[0] in ('style', 'ood'):
    assert main([*arguments, '--options']) == 0
  else:
    with stopped_by_parser() as parsed:
      status = main(arguments)
      assert parsed, f'{shlex.join(words)}: exit status {status} before any argument was read'
    given, rest = parsed[-1]
    overrides(name, given, configs.split_overrides(rest))


def found(words: list[str]) -> tuple[Any, list[str]]:
  """-> the main of a command, its arguments; None where there is no more to check than its name."""
  first, *rest = words
  if first == 'car-jax':
    named = program.COMMANDS.get(rest[0])
    return (home(named), rest[1:]) if named else (program.main, rest)
  if words[:2] == ['python', '-m']:
    spec = importlib.util.find_spec(rest[1])
    assert spec, f'no module {rest[1]}'
    if rest[1].startswith('car_jax.'):
      return home(f'{rest[1]}.__main__' if spec.submodule_search_locations else rest[1]), rest[2:]
  elif first == 'make':
    rules = re.findall(r'^([\w -]+):(?!=)', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert {w for w in rest if '=' not in w} <= {*' '.join(rules).split()}, words
  elif words[:2] == ['pip', 'install']:
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project'][
      'optional-dependencies'
    ]
    for named in re.findall(r'car-jax\[([\w,]+)\]', ' '.join(rest)):
      assert {*named.split(',')} <= {*extras}, words
  else:
    assert first in ('python', 'hf'), f'the pages have no program {first!r}'  # of a file, the hub's
  return None, []


def home(module: str) -> Any:
  return importlib.import_module(module).main


class Parsed(BaseException):
  """The arguments were read; nothing more is to happen."""


@contextlib.contextmanager
def stopped_by_parser() -> Iterator[list[tuple[argparse.Namespace, list[str]]]]:
  """Inside, a program ends once its parser has read the arguments, which are given."""
  known, every = argparse.ArgumentParser.parse_known_args, argparse.ArgumentParser.parse_args
  parsed: list[tuple[argparse.Namespace, list[str]]] = []

  def parse_known_args(self, args=None, namespace=None):
    parsed.append(known(self, args, namespace))
    raise Parsed

  def parse_args(self, args=None, namespace=None):
    given, rest = known(self, args, namespace)
    if rest:
      self.error(f'unrecognized arguments: {" ".join(rest)}')
    parsed.append((given, []))
    raise Parsed

  argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign]
  argparse.ArgumentParser.parse_args = parse_args  # type: ignore[method-assign]
  try:
    with contextlib.suppress(Parsed):
      yield parsed
  finally:
    argparse.ArgumentParser.parse_known_args = known  # type: ignore[method-assign]
    argparse.ArgumentParser.parse_args = every  # type: ignore[method-assign]


def overrides(name: str, given: argparse.Namespace, pairs: list[tuple[str, str]]) -> None:
  """The config that a command names is there and takes the options. Raises UserError.

  CONFIG, and the config of a run that is not there, is any that takes them.
  """
  path = getattr(given, 'config', None) or ''
  if name == 'eval' and path:
    study_options.load(path, pairs)
  elif path and path != 'CONFIG':
    configs.load(path, pairs)
  else:
    for pair in pairs:
      for k, some in enumerate(ANY):
        try:
          configs.load(some, [pair])
          break
        except UserError:
          if k == len(ANY) - 1:
            raise
