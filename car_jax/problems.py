"""How what is wrong with a source, and what was left out of it, is collected and reported."""

import contextlib
from collections.abc import Iterator
from typing import Any

from car_jax.errors import UserError

SHOWN = 3  # paths of a kind that are listed; of all the number is


class Problems:
  """Everything wrong with a source, by path, reported at once: a user mends a folder in one go.

  And what is no fault but was left out or changed: it is counted, by its reason, and reported too.
  """

  def __init__(self) -> None:
    self.lines: dict[str, None] = {}  # in order; a file may be read for several splits
    self.notes: dict[str, dict[str, None]] = {}  # reason -> paths, in order

  def add(self, path: Any, what: str) -> None:
    self.lines[f'  {path}: {what}'] = None

  def note(self, path: Any, what: str) -> None:
    """Something was left out, or taken otherwise than as it is: `what` says which and why."""
    self.notes.setdefault(what, {})[str(path)] = None

  @contextlib.contextmanager
  def collecting(self) -> Iterator[None]:
    """A UserError inside, which names its file, becomes one of the problems."""
    try:
      yield
    except UserError as e:
      self.lines['  ' + str(e).replace('\n', '\n  ')] = None

  def stop_if_any(self, source: Any) -> None:
    if lines := self.grouped():
      n = len(lines)
      count = f'{n} problem{"s" if n > 1 else ""}'
      raise UserError(f'{count} in {source}, nothing was prepared:\n' + '\n'.join(lines))

  def grouped(self) -> list[str]:
    """A text for each problem; those that one hint mends stand together, the last with it."""
    of_hint: dict[str, list[str]] = {}
    for line in self.lines:
      text, _, hint = line.partition('\n')
      of_hint.setdefault(hint, []).append(text)
    for hint, texts in of_hint.items():
      texts[-1] += f'\n{hint}' if hint else ''
    return [text for texts in of_hint.values() for text in texts]

  def noted(self, shown: int = SHOWN) -> list[str]:
    """A line for each reason: how many, why, and the first paths."""
    lines = []
    for what, paths in self.notes.items():
      first = ', '.join([*paths][:shown]) + (', ...' if len(paths) > shown else '')
      lines.append(f'  {len(paths):,} x {what}: {first}')
    return lines
