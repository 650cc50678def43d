"""The type of arrays that may be jax's or numpy's: a checker knows the former's attributes."""

from typing import Any

import jax

Array = jax.Array | Any
