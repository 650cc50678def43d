"""The embedded data set: real four-reader LIDC masks, with CT-like images rendered around them."""

import dataclasses
import pathlib
from typing import Annotated

import numpy as np

from car_jax.datasets import base
from car_jax.datasets.lidc_masks import render
from car_jax.options import Range

SIDE = 128  # pixels of 1 mm in the file
FILE = pathlib.Path(__file__).with_name('lidc_masks.npz')
HOMEPAGE = 'https://www.cancerimagingarchive.net/collection/lidc-idri'
ABOUT = base.About(  # any data set of LIDC's nodules with its four readers
  class_names=('background', 'nodule'),
  readers=4,
  groups='patients',
  licence='LIDC-IDRI, CC BY 3.0',
  citation='S. G. Armato III et al., The Lung Image Database Consortium (LIDC) and Image Database '
  'Resource Initiative (IDRI), Medical Physics 38(2), 2011; masks CC BY 3.0',
)


@dataclasses.dataclass
class Config(base.Config):
  version: str = '1.1.0'
  size: Annotated[int, Range(1, SIDE)] = SIDE
  """Side of the image in pixels of 1 mm."""
  noise: Annotated[float, Range(0.0, 100.0)] = 1.0
  """Strength of the noise in the images."""
  contrast: Annotated[float, Range(0.0, 100.0)] = 1.0
  """Of the nodules against the lung."""


class Builder(base.Builder):
  """Outlines of four radiologists (LIDC-IDRI) on rendered images; patient-wise splits."""

  ABOUT = dataclasses.replace(ABOUT, licence='masks CC BY 3.0 (LIDC-IDRI); images rendered')
  FOR_ACCELERATOR = True
  HOMEPAGE = HOMEPAGE
  TRAINING = 'car_lidc_masks'
  BUILDER_CONFIGS = [
    Config(description='128x128'),
    Config(size=64, description='64x64, which cuts no mask; what the demo trains on'),
  ]

  def splits(self, source):
    self.data = dict(np.load(FILE))
    return {s: np.flatnonzero(self.data['split'] == k) for k, s in enumerate(base.SPLITS)}

  def example(self, i):
    config, ratings = self.builder_config, self.data['ratings'][i]
    masks = centre(masks_of(self.data, i), config.size)
    strength = dict(noise=config.noise, contrast=config.contrast)
    image = render.slice_image(masks, ratings, seed=int(i), **strength)
    patient, name = names_of(self.data, i)
    yield name, patient, image[..., None], masks


def masks_of(data: dict[str, np.ndarray], i: int) -> np.ndarray:
  """The four masks uint8 [4, SIDE, SIDE] of row i of the file."""
  return np.unpackbits(data['masks'][i]).reshape(4, SIDE, SIDE)


def names_of(data: dict[str, np.ndarray], i: int) -> tuple[str, str]:
  """The patient, and the id of the slice."""
  patient = f'LIDC-IDRI-{data["patient"][i]:04d}'
  return patient, f'{patient}/nodule{data["nodule"][i]:04d}/z{data["z_mm"][i]:+.2f}'


def centre(masks: np.ndarray, size: int) -> np.ndarray:
  """The central size x size pixels of masks [M, S, S]; what lies outside them is cut off."""
  start = (masks.shape[-1] - size) // 2
  return np.ascontiguousarray(masks[:, start : start + size, start : start + size])
