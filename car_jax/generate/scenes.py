"""The scenes that images are made of: files of the user's, or drawn ones.

Sizes of files are read at once, their pixels when they are asked for. Letters: H x W pixels.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, Protocol

from PIL import Image

from car_jax import lookup
from car_jax.errors import UserError, reading
from car_jax.generate import captioned
from car_jax.generate.captioned import Scene
from car_jax.generate.options import SceneOptions


class Scenes(Protocol):
  def __len__(self) -> int: ...

  def __getitem__(self, k: int) -> Scene:
    """Its name is CITY/NAME. Raises UserError for files that cannot be used."""

  def size(self, k: int) -> tuple[int, int]:
    """H, W"""

  def settings(self) -> dict[str, Any]:
    """What tells these scenes from others, wherever they lie."""


def of(options: SceneOptions) -> Scenes:
  """Raises UserError for a file or folder that cannot be read, or lacks something."""
  if options.captions:
    return Files(captioned.listed(pathlib.Path(options.captions), pathlib.Path(options.root)))
  if options.root:
    return Files(captioned.laid_out(pathlib.Path(options.root), options.split))
  if options.height % 2:
    raise UserError(f'config.scenes.height is {options.height}\n  it is an even number')
  make = lookup.own('scenes', 'car_jax.datasets.street_scenes.procedural:Drawn')
  return Drawn(make(options.seed, options.height, options.count), options)


class Files:
  """Raises UserError for pictures of other sizes than their labels, and for what is no picture."""

  def __init__(self, paths: Sequence[captioned.Paths]):
    self._files = captioned.Files(paths)
    self._sizes = [_size(p) for p in paths]

  def __len__(self) -> int:
    return len(self._sizes)

  def _name(self, k: int) -> str:
    path = self._files.paths[k].image
    return f'{path.parent.name}/{path.name.removesuffix(captioned.IMAGE_END).removesuffix(".png")}'

  def __getitem__(self, k: int) -> Scene:
    return self._files[k]._replace(name=self._name(k))

  def size(self, k: int) -> tuple[int, int]:
    return self._sizes[k]

  def settings(self) -> dict[str, Any]:
    texts = [f'{self._name(k)}\t{p.caption}' for k, p in enumerate(self._files.paths)]
    mark = hashlib.sha256('\n'.join(texts).encode(errors='surrogateescape')).hexdigest()[:16]
    return dict(source='files', scenes=len(self), names=mark)


def _size(paths: captioned.Paths) -> tuple[int, int]:
  sizes = []
  for path in (paths.image, paths.labels):
    with reading(path, 'a picture'), Image.open(path) as picture:
      sizes.append(picture.size)
  (width, height), other = sizes
  if other != (width, height):
    text = f'{width}x{height}, its labels {other[0]}x{other[1]}'
    raise UserError(f'{paths.where}: {paths.image} is {text}')
  return height, width


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Of datasets.street_scenes, in clear air."""

  source: Any
  options: SceneOptions

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, k: int) -> Scene:
    return Scene(*self.source.scene(k))

  def size(self, k: int) -> tuple[int, int]:
    return self.options.height, 2 * self.options.height

  def settings(self) -> dict[str, Any]:
    return self.source.settings() | {'scenes_seed': self.options.seed}
