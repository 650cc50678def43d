"""Runs that were never trained, and files to predict, written by the libraries that write them."""

import dataclasses

import cv2
import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset

from car_jax import checkpoints, loop
from car_jax import config as configs
from car_jax.data import opening


def saved(folder, variant, *, info=None, size=32, method=None, **data):
  """A run of a variant as it begins -> its folder."""
  config = configs.load(f'{"configs/smoke" if variant == "lts" else "tests/small"}.py:{variant}')
  config.data.update(data)
  if method:
    config.method.update(method)
  known = dataclasses.replace(opening.open_dataset(config.data).info, **info or {})
  made = loop.build_method(config, known, 8)
  blank = {'image': np.zeros((1, size, size, 3), np.float32)}
  if known.black_box:
    blank['black_box'] = np.zeros((1, size, size), np.int32)
  meta = dict(config=config.to_dict(), data=dataclasses.asdict(known), image=[size, size, 3])
  with checkpoints.Checkpoints(folder / 'checkpoints', keep=1) as target:
    target.save(3, made.init(0, blank), meta)
  return folder


def scene(height, width, seed, colour=True):
  """A picture of soft discs, uint8 [H, W, 3] or [H, W]."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width]
  out = 60 + 40 * np.sin(x / 9 + seed)
  for cy, cx in rng.uniform(0.2, 0.8, (3, 2)):
    out += 60 * (np.hypot(y - cy * height, x - cx * width) < 0.15 * min(height, width))
  out = np.clip(out + rng.normal(0, 5, out.shape), 0, 255)
  return (np.stack([out, 0.8 * out, 255 - out], -1) if colour else out).astype(np.uint8)


def write_picture(path, image):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.npy':
    np.save(path, image)
  elif image.dtype == np.uint16:
    assert cv2.imwrite(str(path), image)
  else:
    Image.fromarray(image).save(path)


def units(slices, height, width):
  """A volume in Hounsfield units, int16 [slices, H, W]."""
  layers = [scene(height, width, 90 + k // 2, colour=False).astype(np.int16) for k in range(slices)]
  return np.stack(layers) * 5 - 900


def write_nifti(path, volume, affine):
  """Slices [Z, H, W] whose columns are X and whose rows are Y."""
  path.parent.mkdir(parents=True, exist_ok=True)
  nibabel.save(nibabel.Nifti1Image(np.transpose(volume, (2, 1, 0)), affine), path)


TURN, PLACE, STEP = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (-30.0, -40.0, -100.0), (0.9, 0.7, 2.5)


def write_series(folder, volume, uid='1.2.3', turn=TURN, place=PLACE, step=STEP, **values):
  """Slices [Z, H, W] as a DICOM series along the normal, in files of shuffled names."""
  folder.mkdir(parents=True, exist_ok=True)
  names = np.random.default_rng(0).permutation(len(volume))
  for k, pixels in enumerate(volume):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file = FileDataset('', {}, file_meta=meta, preamble=b'\0' * 128)
    file.SeriesInstanceUID, file.SOPClassUID = uid, meta.MediaStorageSOPClassUID
    file.SOPInstanceUID, file.Modality = meta.MediaStorageSOPInstanceUID, 'CT'
    along = np.cross(turn[:3], turn[3:]) * step[2] * k
    file.ImagePositionPatient = [*(np.array(place) + along)]
    file.ImageOrientationPatient, file.PixelSpacing = [*turn], [*step[:2]]
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.PhotometricInterpretation = 'MONOCHROME2'
    file.RescaleSlope, file.RescaleIntercept = 1, -1024
    file.PixelData = (pixels.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    for key, value in values.items():
      setattr(file, key, value)
    file.save_as(folder / f'{names[k]:03d}.dcm')
