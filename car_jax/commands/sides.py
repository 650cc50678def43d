"""Sizes of images and windows on the command line: N, or HEIGHT,WIDTH."""

from car_jax.errors import UserError


def one_or_both(text: str | None, flag: str) -> int | tuple[int, int] | None:
  """'256' or '256,512' -> a side, or height and width; None stays. Raises UserError."""
  if text is None:
    return None
  sides = _numbers(text)
  if len(sides) not in (1, 2):
    raise UserError(f'{flag} cannot be {text!r}\n  expected pixels: N, or HEIGHT,WIDTH')
  return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def both(text: str | None, flag: str) -> tuple[int, ...]:
  """'64,128' -> (64, 128); None -> (). Raises UserError."""
  if text is None:
    return ()
  sides = _numbers(text)
  if len(sides) != 2 or not min(sides):
    raise UserError(f'{flag} cannot be {text!r}\n  expected pixels: HEIGHT,WIDTH')
  return sides


def _numbers(text: str) -> tuple[int, ...]:
  """The parts between commas, or () where one is no number of pixels."""
  parts = [part.strip() for part in text.split(',')]
  return tuple(map(int, parts)) if all(p.isascii() and p.isdigit() for p in parts) else ()
