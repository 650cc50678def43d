"""Arrays that a run reads and never changes, such as published weights that lie in a folder.

They are part of a method's state, and with it arguments of its step: a program does not hold them
as numbers of its own. A checkpoint keeps their digest alone; when a run continues its method brings
the arrays again, and they must have the same digest.
"""

import hashlib
from typing import Any

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class Constants:
  """A pytree of arrays and its digest, which is no part of what jit traces."""

  arrays: Any
  digest: str = flax.struct.field(pytree_node=False)


def constants(arrays: Any) -> Constants:
  """arrays: numpy's, whose bytes, types, shapes and names make the digest."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
    a = np.ascontiguousarray(leaf)
    digest.update(f'{jax.tree_util.keystr(path)} {a.dtype} {a.shape}\n'.encode())
    digest.update(a.reshape(-1).view(np.uint8).data)
  return Constants(arrays, digest.hexdigest())


def _is_constant(x: Any) -> bool:
  return isinstance(x, Constants)


def without(tree: Any) -> Any:
  """The tree with nothing in the places of its constants."""
  return jax.tree.map(lambda x: {} if _is_constant(x) else x, tree, is_leaf=_is_constant)


def digests(tree: Any) -> dict[str, str]:
  """Path of each constant, such as 'unet' -> its digest."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_constant)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator='/')
  return {name(path): x.digest for path, x in flat if _is_constant(x)}


def filled(tree: Any, template: Any) -> Any:
  """The inverse of `without`, with the constants of a template."""
  leaves, (flat, treedef) = iter(jax.tree.leaves(tree)), jax.tree.flatten(template, _is_constant)
  merged = [x if _is_constant(x) else next(leaves) for x in flat]
  return jax.tree.unflatten(treedef, merged)
