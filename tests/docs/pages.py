"""Runs the blocks of a page in their order, as a reader would who types them into an empty folder.

A ```python block runs in the page's one namespace; one that begins with `# NAME.py` is that file;
one of `>>>` prints what stands there. Of a ```sh block each line runs, in this process. A comment
just before a block says otherwise:

  <!-- not run: WHY -->             what needs a download, an accelerator or hours: the arguments go
                                    through the command's own parser, options through the config
  <!-- not run on this page: WHY --> the same for all ```sh blocks of a page
  <!-- run -->                      but for this one
  <!-- before: PYTHON -->           runs first: files or names that the reader has

A notebook is a page whose cells are blocks. Where its metadata have `toy`, these assignments follow
the cell with the tag `parameters`.
"""

import ast
import contextlib
import dataclasses
import doctest
import importlib
import json
import os
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from tests.docs import commands

ROOT = pathlib.Path(__file__).parents[2]
FENCE = re.compile(
  r'(?P<comments>(?:^[ ]*<!--(?:(?!-->).)*-->\n+)*)'
  r'^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$',
  re.MULTILINE | re.DOTALL,
)
SHELL = re.compile(r'^!((?:.*\\\n)*.*)$', re.MULTILINE)
COMMENT = re.compile(r'<!-- *(.*?) *-->', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Block:
  """A block of code; place is its file and line."""

  place: str
  line: int
  language: str
  text: str
  runs: bool = True
  before: str = ''


def blocks(path: pathlib.Path) -> list[Block]:
  """Of a page or a notebook."""
  if path.suffix == '.ipynb':
    return [*cells(path)]
  page = path.read_text()
  never, out = '<!-- not run on this page' in page, []
  for match in FENCE.finditer(page):
    language, text = match['language'], textwrap.dedent(match['text'])
    said = COMMENT.findall(match['comments'])
    before = '\n'.join(c.removeprefix('before:').strip('\n') for c in said if c[:7] == 'before:')
    marked = any(c.startswith('not run:') for c in said)
    runs = not marked and ('run' in said or language != 'sh' or not never)
    line = page[: match.start('text')].count('\n')
    out.append(Block(path.name, line, language, text, runs, textwrap.dedent(before)))
  return out


def cells(path: pathlib.Path) -> Iterator[Block]:
  """The code of a notebook; lines that begin with ! are commands with names in braces."""
  book = json.loads(path.read_text())
  for k, cell in enumerate(book['cells']):
    if cell['cell_type'] == 'code':
      text = SHELL.sub(lambda m: f'sh(f{m[1]!r})', ''.join(cell['source']))
      toy = book['metadata'].get('toy', '')
      more = f'\n{toy}' if 'parameters' in cell['metadata'].get('tags', ()) else ''
      yield Block(f'{path.name}, cell {k}', 0, 'python', text + more)


@contextlib.contextmanager
def session(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """A namespace in a folder; modules that are imported from there are forgotten in the end."""
  modules, paths = {*sys.modules}, [*sys.path]
  names: dict[str, Any] = {'__name__': '__main__', 'sh': lambda line: commands.run(line)}
  with contextlib.chdir(folder):
    sys.path_importer_cache.pop('.', None)  # of another folder, which it knows by its whole name
    try:
      yield names
    finally:
      sys.path[:] = paths
      for name in {*sys.modules} - modules:
        file = getattr(sys.modules[name], '__file__', None)
        if file and pathlib.Path(file).is_relative_to(os.getcwd()):
          del sys.modules[name]


def play(path: pathlib.Path, folder: pathlib.Path) -> None:
  """Runs all blocks of a page in `folder`. Raises what they raise, with file and line."""
  with session(folder) as names:
    for block in blocks(path):
      perform(block, names)


def perform(block: Block, names: dict[str, Any]) -> None:
  exec(compile(block.before, f'{block.place}, before {block.line}', 'exec'), names)
  if block.language == 'sh':
    for line in commands.lines(block.text):
      (commands.run if block.runs else commands.check)(line)
  elif block.language == 'python':
    if file := re.match(r'# (\w+\.py)\n', block.text):
      pathlib.Path(file[1]).write_text(block.text)
    elif block.text.startswith('>>>'):
      _compare(block, names)
    else:
      code = ast.parse('\n' * block.line + block.text, block.place)
      if block.runs:
        exec(compile(code, block.place, 'exec'), names)
      _imports(code)
  elif not block.language:
    assert not commands.COMMAND.search(block.text), f'{block.place}:{block.line} is no ```sh block'


def _compare(block: Block, names: dict[str, Any]) -> None:
  test = doctest.DocTestParser().get_doctest(block.text, names, block.place, None, block.line)
  test.globs = names
  said: list[str] = []
  result = doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
  assert not result.failed, ''.join(said)


def _imports(code: ast.AST) -> None:
  """What a block imports is there, also of one that does not run."""
  for node in ast.walk(code):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('car_jax'):
      for alias in node.names:
        home = importlib.import_module(str(node.module))
        if not hasattr(home, alias.name):
          importlib.import_module(f'{node.module}.{alias.name}')
