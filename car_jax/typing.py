"""The type of arrays that may be jax's or numpy's: a checker knows the former's attributes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import jax

  Array = jax.Array | Any
else:  # the same, but jaxtyping takes a fifth of the time over it when a module is imported
  Array = Any
