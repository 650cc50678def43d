"""The embedded data set: real four-reader LIDC masks, with CT-like images rendered around them."""

import pathlib

import numpy as np

from datasets import common
from datasets.lidc_masks import render

FILE = pathlib.Path(__file__).with_name('lidc_masks.npz')
CITATION = (
  'S. G. Armato III et al., The Lung Image Database Consortium (LIDC) and Image Database Resource '
  'Initiative (IDRI), Medical Physics 38(2), 2011; masks CC BY 3.0'
)


class Builder(common.Builder):
  """Outlines of four radiologists (LIDC-IDRI) on rendered images; patient-wise splits."""

  def contents(self, options, problems):
    data = dict(np.load(FILE))
    values = options.values
    splits = {}
    for number, split in enumerate(common.SPLITS):
      rows = np.flatnonzero(data['split'] == number)
      splits[split] = len(rows), lambda rows=rows: self._examples(data, rows, values)
    return common.Contents(
      class_names=('background', 'nodule'),
      readers=4,
      splits=splits,
      licence='masks CC BY 3.0 (LIDC-IDRI); images rendered',
      citation=CITATION,
    )

  def _examples(self, data, rows, values):
    size = values['size']
    start = (128 - size) // 2
    for i in rows:
      masks = np.unpackbits(data['masks'][i]).reshape(4, 128, 128)
      image = render.slice_image(
        masks,
        data['ratings'][i],
        seed=int(i),
        noise=values['noise'],
        contrast=values['contrast'],
        size=size,
      )
      patient = f'LIDC-IDRI-{data["patient"][i]:04d}'
      name = f'{patient}/nodule{data["nodule"][i]:04d}/z{data["z_mm"][i]:+.2f}'
      window = slice(start, start + size)
      yield name, patient, image[..., None], masks[:, window, window]
