"""The embedded data set: real four-reader LIDC masks, with CT-like images rendered around them."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds

from datasets import common
from datasets.lidc_masks import render
from datasets.options import Option

SIDE = 128  # pixels of 1 mm in the file
FILE = pathlib.Path(__file__).with_name('lidc_masks.npz')
CITATION = (
  'S. G. Armato III et al., The Lung Image Database Consortium (LIDC) and Image Database Resource '
  'Initiative (IDRI), Medical Physics 38(2), 2011; masks CC BY 3.0'
)
LICENCE = 'LIDC-IDRI, CC BY 3.0'


def contents(splits: dict, licence: str = LICENCE) -> common.Contents:
  """Of any data set of LIDC's nodules with its four readers."""
  return common.Contents(
    class_names=('background', 'nodule'),
    readers=4,
    splits=splits,
    licence=licence,
    citation=CITATION,
  )


class Builder(common.Builder):
  """Outlines of four radiologists (LIDC-IDRI) on rendered images; patient-wise splits."""

  VERSION = tfds.core.Version('1.1.0')
  CONFIG = 'car_lidc_masks'
  SOURCE = ''
  OPTIONS = {
    'size': Option(128, 'side of the image in pixels of 1 mm', 1, SIDE),
    'noise': Option(1.0, 'strength of the noise in the images', 0, 100),
    'contrast': Option(1.0, 'of the nodules against the lung', 0, 100),
  }

  def contents(self, options, problems):
    values = options.values
    data = dict(np.load(FILE))
    splits = {}
    for number, split in enumerate(common.SPLITS):
      rows = np.flatnonzero(data['split'] == number)
      splits[split] = len(rows), lambda rows=rows: self._examples(data, rows, values)
    return contents(splits, 'masks CC BY 3.0 (LIDC-IDRI); images rendered')

  def _examples(self, data, rows, values):
    for i in rows:
      masks = centre(np.unpackbits(data['masks'][i]).reshape(4, SIDE, SIDE), values['size'])
      strength = {k: values[k] for k in ('noise', 'contrast')}
      image = render.slice_image(masks, data['ratings'][i], seed=int(i), **strength)
      patient = f'LIDC-IDRI-{data["patient"][i]:04d}'
      name = f'{patient}/nodule{data["nodule"][i]:04d}/z{data["z_mm"][i]:+.2f}'
      yield name, patient, image[..., None], masks


def centre(masks: np.ndarray, size: int) -> np.ndarray:
  """The central size x size pixels of masks [M, S, S]; what lies outside them is cut off."""
  start = (masks.shape[-1] - size) // 2
  return np.ascontiguousarray(masks[:, start : start + size, start : start + size])
