"""What replays of the families of ambiguous segmentation share; tests/golden/families/README.md.

Everything is replayed in float64, what a step needs alone in float32 too.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax

from car_jax.optim import Averaged
from tests.golden.fill import fill
from tests.replay import Replay


def settings(r: Replay) -> dict[str, Any]:
  """The sizes that a file was made with; declares what its torch measured of itself."""
  r.leave_out("torch's own error in float32", 'f32_err')
  return json.loads(str(r['config']))


@contextlib.contextmanager
def precision(wide: bool) -> Iterator[Callable[[Any], Any]]:
  """In float64 or not: a function that brings arrays of floats to the type."""
  kind = np.float64 if wide else np.float32
  cast = lambda a: np.asarray(a, kind) if np.asarray(a).dtype.kind == 'f' else np.asarray(a)
  with jax.enable_x64(wide), jax.default_matmul_precision('highest'):
    yield lambda tree: jax.tree.map(cast, tree)


class ImageAsGiven:
  """For methods to be made of: the net is given the image as it is."""

  def observed(self, batch: Any) -> Any:
    return batch['image']


class Weights:
  """The recorded weights of a file in our layout, and ours in torch's."""

  def __init__(self, r: Replay, convert: Callable[[dict[str, np.ndarray]], dict[str, Any]]):
    text = (r.folder / f'manifest_{r.stem}.json').read_text()
    self.shapes = {name: tuple(shape) for name, shape in json.loads(text).items()}
    self.torch = {name: fill(name, shape) for name, shape in self.shapes.items()}
    self._convert = convert
    sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
    self._starts = dict(zip(self.shapes, np.cumsum([0, *sizes]), strict=False))
    self._size = sum(sizes)

  def variables(self) -> dict[str, Any]:
    return self._convert(self.torch)

  def foreign(self, tree: Any, group: str = 'params') -> dict[str, np.ndarray]:
    """Our leaves under torch's names: found by converting numbers of places; 0 for what we lack."""
    places = {
      name: np.arange(start, start + int(np.prod(self.shapes[name]))).reshape(self.shapes[name])
      for name, start in self._starts.items()
      if not name.endswith('num_batches_tracked')
    }
    counters = {n: np.zeros(()) for n in self.shapes if n not in places}
    flat, ours = np.zeros(self._size), self._convert(places | counters)[group]
    for place, leaf in zip(jax.tree.leaves(ours), jax.tree.leaves(tree), strict=True):
      if np.ndim(leaf) and np.issubdtype(np.asarray(leaf).dtype, np.floating):
        flat[np.int64(np.ravel(place))] = np.ravel(np.asarray(leaf, np.float64))
    return {n: flat[p.ravel()].reshape(p.shape) for n, p in places.items()}


def strided(a: np.ndarray) -> np.ndarray:
  """An array as files keep it: in full up to 400 entries, else every 61st."""
  return a if a.size <= 400 else a.reshape(-1)[::61]


def check_gradients(
  r: Replay, grads: dict[str, np.ndarray], tolerance: float, prefix: str = '', own: float = 0.0
) -> None:
  """By the norm of all gradients together; `own`: arrays by their own largest instead."""
  total = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
  for name, g in grads.items():
    if (key := f'{prefix}grad_norm/{name}') in r:
      r.check(key, np.linalg.norm(g), tolerance, scale=total)
    if (key := f'{prefix}grad/{name}') in r:
      if own:
        r.check(key, strided(g), own, scale=max(np.abs(r[key]).max(), tolerance * total))
      else:
        r.check(key, strided(g), tolerance, scale=total)


def check_steps(
  r: Replay,
  weights: Weights,
  optimizer: Any,
  run: Callable[[Any], Any],
  params: Any,
  tolerance: float,
) -> Any:
  """Losses before each update and, in float64, the parameters after the last, which are returned,
  and their average, where the optimizer makes one.

  run(params) -> (loss, anything), gradients.
  """
  kind = jax.tree.leaves(params)[0].dtype
  cast = lambda a: a.astype(kind) if a.dtype.kind == 'f' else a
  state, losses = jax.tree.map(cast, optimizer.init(params)), []
  moved = jax.jit(optimizer.update)
  for k in range(len(r['step_losses'])):
    (loss, _), grads = run(params)
    losses.append(float(loss))
    params, state = moved(k, grads, state, params)
  r.check('step_losses', losses, tolerance, relative=True)
  if kind == np.float64:
    for name, value in weights.foreign(params).items():
      if (key := f'after/{name}') in r:
        r.check(key, strided(value), tolerance, relative=True)
      if (key := f'after_norm/{name}') in r:
        r.check(key, np.linalg.norm(value), tolerance, relative=True)
    averages = weights.foreign(state.params) if isinstance(state, Averaged) else {}
    for name, value in averages.items():
      if (key := f'average/{name}') in r:
        r.check(key, strided(value), tolerance, relative=True)
  return params


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(x, -3, -1)


def nchw(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, -3)


def squares(params: Any, but: str) -> Any:
  """Half the squared norm of all kernels but of the module `but`."""
  kernels = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
  }
  counted = [leaf for path, leaf in kernels.items() if 'kernel' in path and f"'{but}'" not in path]
  return optax.tree.norm(counted, squared=True) / 2
