"""What the numbers of a DICOM slice mean, in whichever units its file says."""

from typing import Any

import numpy as np


def check_header(file: Any) -> None:
  """Raises ValueError unless a file holds one slice whose numbers mean what those of CT mean."""
  frames = int(getattr(file, 'NumberOfFrames', None) or 1)
  if frames != 1:
    raise ValueError(f'{frames} frames; one is expected')
  if file.SamplesPerPixel != 1:
    raise ValueError(f'{file.SamplesPerPixel} samples per pixel; one is expected')
  if file.PhotometricInterpretation != 'MONOCHROME2':
    raise ValueError(f'PhotometricInterpretation {file.PhotometricInterpretation}, no MONOCHROME2')
  if not file.file_meta.TransferSyntaxUID.is_compressed:
    size = int(file.Rows) * int(file.Columns) * int(file.BitsAllocated) // 8
    if len(file.PixelData) not in (size, size + size % 2):
      raise ValueError(f'{len(file.PixelData)} bytes of pixels; its header says {size}')


def units(file: Any, slope: float, intercept: float) -> np.ndarray:
  """A pydicom file's slice in Hounsfield or its own units, float32 [H, W]. Raises ValueError."""
  check_header(file)
  if not (np.isfinite([slope, intercept]).all() and 0 < abs(slope) < 1e4 > abs(intercept) / 10):
    raise ValueError(f'its RescaleSlope is {slope}, its RescaleIntercept {intercept}')
  values = file.pixel_array.astype(np.float32) * slope + intercept
  if values.ndim != 2:
    raise ValueError(f'its pixels are an array {values.shape}, not one slice')
  return values
