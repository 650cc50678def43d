"""What is written of an image or a volume; every file is whole or not there.

  masks/NAME.png              class ids: the likeliest class of every pixel
  colours/NAME.png            the same in the classes' colours
  samples/NAME.npz            samples [N, H, W] class ids, weights [N]
  probabilities/NAME.npz      probabilities [H, W, C] float16
  probability_maps/NAME/K_CLASS.png  of one class, 65535 is 1
  uncertainty/NAME.npz        entropy and mutual_information [H, W] float32, in nats
  entropy/NAME.png, mutual_information/NAME.png   65535 is log C nats
A model of one answer has no mutual information.
Of a volume NAME.nii.gz instead, without colours and maps, with the shape and affine of its file;
samples and probabilities with one more axis, entropy/ and mutual_information/ in nats.
  pages/NAME-image.jpg, -mask.jpg, -uncertainty.jpg   what the page shows

Letters: N samples, H x W pixels, C classes.
"""

import pathlib
from typing import Any

import numpy as np

from car_jax import folders
from car_jax.data.sources import DataInfo, colours
from car_jax.predict import values
from car_jax.predict.rows import class_names
from car_jax.predict.volumes import Volume
from car_jax.report import rendering

KINDS = ('masks', 'samples', 'probabilities', 'uncertainty')
SHOWN = ('image', 'mask', 'uncertainty')
WIDTH = 640  # pixels of what the page shows
FULL = 65535
MAPS = ('entropy', 'mutual_information')
FOLDERS = (*KINDS, *MAPS, 'colours', 'probability_maps', 'pages')  # all that it writes into


def palette_of(info: DataInfo) -> np.ndarray:
  """A colour for each class, uint8 [C, 3]."""
  whole = len(info.palette) == info.num_classes
  return np.asarray(info.palette if whole else colours(info.num_classes), np.uint8)


class Writer:
  """Writes into the folder `out` what `kinds` names. Paths are those of what was written, in it."""

  def __init__(self, out: pathlib.Path, info: DataInfo, kinds: tuple[str, ...], single: bool):
    self._maps = MAPS[:1] if single else MAPS
    self.out, self.kinds, self.palette = out, kinds, palette_of(info)
    self._names, self._most = class_names(info), float(np.log(info.num_classes))
    self._ids = np.uint8 if info.num_classes <= 256 else np.uint16

  def picture(self, name: str, out: Any) -> list[str]:
    """Of Outputs of one image. -> paths."""
    made = []
    if 'masks' in self.kinds:
      made += [self._png(f'masks/{name}.png', out.mask.astype(self._ids))]
      made += [self._png(f'colours/{name}.png', self.palette[out.mask])]
    if 'samples' in self.kinds:
      samples = dict(samples=out.samples, weights=out.weights)
      made += [self._npz(f'samples/{name}.npz', samples)]
    if 'probabilities' in self.kinds:
      probs = out.probabilities
      made += [self._npz(f'probabilities/{name}.npz', dict(probabilities=probs.astype('f2')))]
      for k, title in enumerate(self._names):
        place = f'probability_maps/{name}/{k}_{folders.slug(title)}.png'
        made += [self._scaled(place, probs[..., k], 1.0, 'probability 1')]
    if 'uncertainty' in self.kinds:
      maps = {key: getattr(out, key) for key in self._maps}
      made += [self._npz(f'uncertainty/{name}.npz', maps)]
      for key, array in maps.items():
        text = f'{self._most:.6f} nats (the log of {len(self._names)} classes)'
        made += [self._scaled(f'{key}/{name}.png', array, self._most, text)]
    return made

  def volume(self, name: str, out: Any, volume: Volume) -> list[str]:
    """Of Outputs with a volume's axes. -> paths."""
    arrays = {}
    if 'masks' in self.kinds:
      arrays['masks'] = out.mask.astype(self._ids), 'class ids'
    if 'samples' in self.kinds:
      samples = np.moveaxis(out.samples, 0, -1).astype(self._ids)
      arrays['samples'] = samples, 'class ids of a sample in each of the last axis'
    if 'probabilities' in self.kinds:
      arrays['probabilities'] = out.probabilities, 'probability of a class in each of the last axis'
    if 'uncertainty' in self.kinds:
      arrays |= {key: (getattr(out, key), f'{key.replace("_", " ")} in nats') for key in self._maps}
    made = [f'{kind}/{name}.nii.gz' for kind in arrays]
    for path, (array, text) in zip(made, arrays.values(), strict=True):
      with folders.whole(self.out / path) as part:
        volume.save(part, array, text)
    return made

  def shown(self, name: str, image: np.ndarray, out: Any, key: str) -> list[str]:
    """What the page shows of one image or slice; key: which of MAPS stands for uncertainty."""
    image = values.as_bytes(image)
    if image.shape[:2] != out.mask.shape:
      raise ValueError(f'{name}: {image.shape} and {out.mask.shape}')
    drawn = {
      'image': image,
      'mask': overlaid(image, out.mask, self.palette),
      'uncertainty': rendering.heat(getattr(out, key) / self._most),
    }
    made = []
    for kind, picture in drawn.items():
      made.append(f'pages/{name}-{kind}.jpg')
      with folders.whole(self.out / made[-1]) as part:
        part.write_bytes(rendering.jpeg(rendering.small(picture, WIDTH), quality=80))
    return made

  def _png(self, path: str, array: np.ndarray, text: str = '') -> str:
    from PIL import Image, PngImagePlugin

    about = PngImagePlugin.PngInfo()
    if text:
      about.add_text('Description', text)
    with folders.whole(self.out / path) as part:
      Image.fromarray(array).save(part, format='PNG', pnginfo=about)
    return path

  def _scaled(self, path: str, array: np.ndarray, most: float, text: str) -> str:
    scaled = np.rint(np.clip(array / most, 0, 1) * FULL).astype(np.uint16)
    return self._png(path, scaled, f'0 is 0, {FULL} is {text}')

  def _npz(self, path: str, arrays: dict[str, np.ndarray]) -> str:
    with folders.whole(self.out / path) as part, part.open('wb') as file:
      np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path


def overlaid(image: np.ndarray, mask: np.ndarray, palette: np.ndarray) -> np.ndarray:
  """The picture under half-transparent class colours; a black class 0 is background without one."""
  colour = palette[mask]
  mixed = (image.astype(np.uint16) + colour) // 2
  plain = (mask == 0) & (not palette[0].any())
  return np.where(plain[..., None], image, mixed).astype(np.uint8)
