"""What a config file does with the word after its colon: configs/demo.py:mose."""

from collections.abc import Collection

from car_jax.errors import UserError, nearest


def check(file: str, variant: str, variants: Collection[str]) -> None:
  """Raises UserError for a variant that the file, called so, does not have."""
  if variant not in variants:
    raise UserError(f'configs/{file}.py has no variant {variant!r}\n{nearest(variant, variants)}')
