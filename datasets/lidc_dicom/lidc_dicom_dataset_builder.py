"""Real CT crops around LIDC's nodules: a TCIA LIDC-IDRI download cut with the shipped masks."""

import dataclasses
import pathlib
import sys
from typing import Annotated, Any

import cv2
import numpy as np

from car_jax import dicom, files
from car_jax.datasets import base, common
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks
from car_jax.datasets.lidc_masks.lidc_masks_dataset_builder import SIDE
from car_jax.errors import UserError, package, reading
from car_jax.options import Range


@dataclasses.dataclass
class Config(base.Config):
  low: Annotated[float, Range(-1e5, 1e5)] = -1000.0
  """Hounsfield units that become black."""
  high: Annotated[float, Range(-1e5, 1e5)] = 400.0
  """Hounsfield units that become white."""

  def check(self):
    if self.low >= self.high:
      raise UserError(f'--low cannot be {self.low}\n  expected less than --high')


class Builder(base.Builder):
  """128x128 crops at 1 mm of the slices whose series is in the source, with their four masks."""

  ABOUT, HOMEPAGE = lidc_masks.ABOUT, lidc_masks.HOMEPAGE
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
    the .dcm files of LIDC-IDRI, or a part of them, in any folders: a download of The Cancer
    Imaging Archive ({HOMEPAGE})"""
  BUILDER_CONFIGS = [Config(description='-1000 to 400 Hounsfield units')]

  def about(self):
    config = self.builder_config
    return dataclasses.replace(self.ABOUT, range=f'{config.low:g},{config.high:g} HU')

  def splits(self, source):
    self.data = dict(np.load(lidc_masks.FILE))
    wanted = {str(uid): number for number, uid in enumerate(self.data['series_uid'])}
    self.slices = find_slices(source, wanted, self.problems)
    if not self.slices:
      self.problems.stop_if_any(source)
      raise UserError(
        f'{source} holds no DICOM file of a LIDC-IDRI series\n'
        '  expected the folder of the TCIA download, with the series UIDs unchanged'
      )
    print(f'{len(self.slices):,} of {len(wanted):,} series found in {source}', file=sys.stderr)
    here = np.isin(self.data['series'], [*self.slices])
    return {s: np.flatnonzero(here & (self.data['split'] == k)) for k, s in enumerate(base.SPLITS)}

  def example(self, i):
    data, z, config = self.data, float(self.data['z_mm'][i]), self.builder_config
    slices = self.slices[int(data['series'][i])]
    nearest = min(slices, key=lambda s: abs(s - z))
    if abs(nearest - z) > 2.0:
      uid = data['series_uid'][data['series'][i]]
      self.problems.add(f'series {uid}', f'no slice at z {z:.2f} mm; nearest {nearest:.2f}')
      return
    units = read_units(slices[nearest], self.problems)
    if units is None:
      return
    crop = cut(units, data['centre_xy_px'][i], data['spacing_mm'][i])
    scaled = (crop - config.low) / (config.high - config.low) * 255
    image = np.clip(scaled, 0, 255).astype(np.uint8)
    patient, name = lidc_masks.names_of(data, i)
    yield name, patient, image[..., None], lidc_masks.masks_of(data, i)


def find_slices(root: pathlib.Path, wanted: dict[str, int], problems: common.Problems) -> dict:
  """Series number -> {z in mm: file} of the wanted series below `root`.

  What does not end in .dcm is noted. Two slices of one series at one z must be the same file twice,
  else which is meant cannot be known.
  """
  pydicom = package('pydicom', 'dicom', 'lidc_dicom')
  slices: dict[int, dict[float, pathlib.Path]] = {}
  paths = common.files_under(root, problems)
  tags = ['SeriesInstanceUID', 'ImagePositionPatient']
  for path in base.progress(paths, 'reading DICOM headers'):
    if path.suffix == '.DCM':
      problems.add(path, 'ends in .DCM; TCIA names its files .dcm, rename it')
      continue
    if path.suffix != '.dcm':
      problems.note(path, 'no .dcm file, not read')
      continue
    with problems.collecting():
      files.check_regular(path)
      with reading(path, 'DICOM'):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        number = wanted.get(str(header.SeriesInstanceUID))
        if number is None:
          problems.note(path, 'of a series that the masks do not know')
          continue
        z = float(header.ImagePositionPatient[2])
        if not np.isfinite(z):
          raise ValueError(f'its z is {z}')
      first = slices.setdefault(number, {}).setdefault(z, path)
      if first != path and first.read_bytes() != path.read_bytes():
        problems.add(path, f'another slice of the same series at z {z:.2f} mm, as is {first}')
  return slices


def read_units(path: pathlib.Path, problems: common.Problems) -> np.ndarray | None:
  """A slice in Hounsfield units, float32 [H, W]; None, with the problem noted, if unreadable."""
  import pydicom

  with problems.collecting(), reading(path, 'the pixels of a CT slice'):
    file = pydicom.dcmread(path)
    return dicom.units(file, float(file.RescaleSlope), float(file.RescaleIntercept))
  return None


def cut(units: np.ndarray, centre: np.ndarray, spacing: float) -> np.ndarray:
  """SIDE x SIDE pixels of 1 mm about `centre` (x, y in source pixels), bilinear, air outside."""
  offsets = (np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2) / np.float32(spacing)
  x, y = np.meshgrid(offsets + centre[0], offsets + centre[1])
  where = x.astype(np.float32), y.astype(np.float32)
  border: dict[str, Any] = dict(borderMode=cv2.BORDER_CONSTANT, borderValue=-1000)
  return cv2.remap(units, *where, interpolation=cv2.INTER_LINEAR, **border)
