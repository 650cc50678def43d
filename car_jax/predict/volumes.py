"""NIfTI volumes and DICOM series: slices as a radiologist sees them, and maps back in their place.

Axes: X, Y, Z of a NIfTI array, whose last one counts slices; H, W of a slice as it is seen.
"""

import dataclasses
import gzip
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import dicom, files
from car_jax.errors import UserError, package, reading

NIFTI = ('.nii', '.nii.gz')
MOST_VOXELS = 1 << 31
POSITION, ORIENTATION, SPACING = 'ImagePositionPatient', 'ImageOrientationPatient', 'PixelSpacing'
TOLERANCE = 0.01  # of a slice's distance, in shares of the usual one; of cosines
UNEVEN = 0.1  # of the usual distance: slices further from even ones have no affine
MILLIMETRES = 'mm'


@dataclasses.dataclass(frozen=True)
class Volume:
  """Where a volume lies, for maps of it to be written as NIfTI.

  affine [4, 4] from voxels X, Y, Z to millimetres right, anterior, superior; header: nibabel's, of
  the file, if it was one. swap: H is Y and W is X, else the other way round; flips: whether H and W
  run against their axis.
  """

  affine: np.ndarray
  header: Any = None
  swap: bool = True
  flips: tuple[bool, bool] = (False, False)

  def seen(self, array: np.ndarray) -> np.ndarray:
    """[X, Y, Z] -> slices [Z, H, W]."""
    slices = np.moveaxis(array, -1, 0)
    slices = np.swapaxes(slices, 1, 2) if self.swap else slices
    return np.ascontiguousarray(self._flipped(slices))

  def stored(self, maps: np.ndarray) -> np.ndarray:
    """Maps of slices [Z, H, W, ..] -> [X, Y, Z, ..]."""
    maps = self._flipped(maps)
    maps = np.swapaxes(maps, 1, 2) if self.swap else maps
    return np.ascontiguousarray(np.moveaxis(maps, 0, 2))

  def _flipped(self, slices: np.ndarray) -> np.ndarray:
    rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
    return slices[:, rows, columns]

  @property
  def spacing(self) -> tuple[float, float, float]:
    """Millimetres from one voxel to the next on each axis."""
    x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(0)).tolist()
    return x, y, z

  def save(self, path: pathlib.Path, array: np.ndarray, text: str) -> None:
    """Writes an array [X, Y, Z, ..] with the volume's geometry; text: of at most 79 letters."""
    import nibabel

    make = nibabel.Nifti2Image if isinstance(self.header, nibabel.Nifti2Header) else None
    image = (make or nibabel.Nifti1Image)(array, self.affine, self.header)
    image.header.set_data_dtype(array.dtype)
    image.header['cal_min'] = image.header['cal_max'] = 0
    image.header['descrip'] = text.encode()[:79]
    if self.header is None:
      image.header.set_xyzt_units(MILLIMETRES)
    raw = image.to_bytes()
    path.write_bytes(gzip.compress(raw, 6, mtime=0))


def of_affine(affine: np.ndarray, header: Any = None) -> Volume:
  """How slices along Z are seen, which is how scanners store axial, coronal and sagittal ones.

  Columns run to the patient's left, or else to the back; rows to the back, or else to the feet.
  """
  import nibabel

  codes = nibabel.aff2axcodes(affine)
  across = next((k for k in (0, 1) if codes[k] in ('L', 'R')), None)
  if across is None:
    across = next((k for k in (0, 1) if codes[k] in ('A', 'P')), 0)
  down = 1 - across
  flips = codes[down] in ('A', 'S'), codes[across] in ('R', 'A')
  return Volume(np.asarray(affine), header, across == 0, flips)


def opened(path: pathlib.Path, axes: int = 3) -> Any:
  """A NIfTI file's header and the place of its numbers, which have at most so many axes.

  Raises UserError.
  """
  nibabel = package('nibabel', 'nifti', f'{path}: NIfTI')
  files.check_regular(path)
  with reading(path, 'NIfTI'):
    image: Any = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
      raise ValueError(f'a {type(image).__name__}')
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
      shape = shape[:-1]
    if not 2 <= len(shape) <= axes or 0 in shape or np.prod(shape, dtype=float) > MOST_VOXELS:
      raise ValueError(f'its shape is {image.shape}; a volume [X, Y, Z] is expected')
    if image.get_data_dtype().kind not in 'iuf':
      raise ValueError(f'voxels of type {image.get_data_dtype()}; numbers are expected')
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-12:
      raise ValueError('its affine cannot be inverted')
  return image


def slices_of(path: pathlib.Path) -> int:
  """How many slices a NIfTI file has. Raises UserError."""
  shape = opened(path).shape
  return int(shape[2]) if len(shape) > 2 else 1


def read_nifti(path: pathlib.Path) -> tuple[np.ndarray, Volume]:
  """Its slices [Z, H, W] as they are seen, scaled as the header says. Raises UserError."""
  image = opened(path)
  with reading(path, 'NIfTI'):
    array = np.asanyarray(image.dataobj)
    array = array.reshape(*array.shape[:2], -1)
  volume = of_affine(image.affine, image.header)
  return volume.seen(array), volume


def read_maps(path: pathlib.Path) -> np.ndarray:
  """Maps of a NIfTI file by slice as they are seen: [Z, H, W], or with its last axis [Z, H, W, N].

  Whole numbers stay integers, also where a label map was written as floats. Raises UserError.
  """
  image = opened(path, axes=4)
  with reading(path, 'NIfTI'):
    array = np.asanyarray(image.dataobj)
    array = array.reshape(*(*array.shape, 1)[:3], *array.shape[3:])
    while array.ndim > 3 and array.shape[-1] == 1:
      array = array[..., 0]
    if array.ndim == 3 and array.dtype.kind == 'f' and (array == np.rint(array)).all():
      array = np.rint(array).astype(np.int32)
  volume = of_affine(image.affine)
  if array.ndim == 3:
    return volume.seen(array)
  return np.stack([volume.seen(x) for x in np.moveaxis(array, -1, 0)], -1)


def dicom_header(path: pathlib.Path) -> Any:
  """A DICOM file without its pixels. Raises UserError."""
  pydicom = package('pydicom', 'dicom', f'{path}: DICOM')
  files.check_regular(path)
  with reading(path, 'DICOM'):
    return pydicom.dcmread(path, stop_before_pixels=True)


@dataclasses.dataclass(frozen=True)
class Slice:
  """What a DICOM file says of its place; None where it says nothing.

  shape: rows and columns. position [3] of its first pixel and turn [2, 3], directions of a row and
  of a column, in millimetres left, posterior, superior; spacing [2] down and across; thick: from
  one slice to the next; number: InstanceNumber.
  """

  shape: tuple[int, int]
  series: str
  position: Any
  turn: Any
  spacing: Any
  thick: float
  number: int

  @property
  def along(self) -> float:
    """How far along the normal, of one that has position and turn."""
    return float(np.cross(*self.turn) @ self.position)


def slice_of(path: pathlib.Path, header: Any) -> Slice:
  """Raises UserError for what no slice has, such as directions that are not at right angles."""
  with reading(path, 'a DICOM slice'):
    turn, position = _numbers(header, ORIENTATION, 6), _numbers(header, POSITION, 3)
    if turn is not None:
      turn = turn.reshape(2, 3)
      if not np.allclose(turn @ turn.T, np.eye(2), atol=TOLERANCE):
        raise ValueError(f'its {ORIENTATION} is {header[ORIENTATION].value}, no two right angles')
    spacing = _numbers(header, SPACING, 2)
    spacing = _numbers(header, 'ImagerPixelSpacing', 2) if spacing is None else spacing
    between = _numbers(header, 'SpacingBetweenSlices', 1)
    between = _numbers(header, 'SliceThickness', 1) if between is None else between
    thick = abs(float(between[0])) if between is not None else 0.0
    if spacing is not None and spacing.min() <= 0:
      raise ValueError(f'its pixels are {spacing[0]:g} x {spacing[1]:g} mm')
    return Slice(
      shape=(int(header.Rows), int(header.Columns)),
      series=str(header.get('SeriesInstanceUID') or path.name),
      position=position,
      turn=turn,
      spacing=spacing,
      thick=thick or 1.0,
      number=int(header.get('InstanceNumber') or 0),
    )


def _numbers(header: Any, key: str, count: int) -> np.ndarray | None:
  """The finite numbers of an element; None where it is missing or empty."""
  if (given := header.get(key)) is None or not str(given):
    return None
  values = np.array([float(x) for x in np.atleast_1d(given)])
  if len(values) == 0:
    return None
  if len(values) != count or not np.isfinite(values).all():
    raise ValueError(f'its {key} is {given}')
  return values


def in_order(slices: Mapping[pathlib.Path, Slice]) -> list[pathlib.Path]:
  """The files of a series by their place along its normal. Raises UserError, naming a file.

  Slices differ in their place alone, and are evenly apart, as one affine has them. A single one, or
  slices that have no place, are taken by InstanceNumber.
  """
  paths = [*slices]
  first = slices[paths[0]]
  for path in paths[1:]:
    if slices[path].shape != first.shape or not _alike(slices[path], first):
      raise UserError(
        f'{path} differs in size, orientation or spacing from {paths[0]}, of the same series\n'
        '  put what is one volume into a folder of its own'
      )
  placed = [path for path in paths if slices[path].position is not None]
  if len(placed) < len(paths) or first.turn is None:
    if placed and len(paths) > 1:
      raise UserError(f'{paths[0].parent}: slices of one series with and without {POSITION}')
    return sorted(paths, key=lambda p: slices[p].number)
  paths.sort(key=lambda p: slices[p].along)
  _check_even(paths, np.diff([slices[path].along for path in paths]))
  return paths


def _check_even(paths: Sequence[pathlib.Path], gaps: np.ndarray) -> None:
  """Raises UserError for two slices of one place, and where one is missing between two."""
  usual = np.median(gaps) if len(gaps) else 0.0
  for one, two, gap in zip(paths, paths[1:], gaps, strict=False):
    if gap < 1e-4:
      raise UserError(
        f'{one} and {two} are two slices of one place\n  keep one of them, or put them apart'
      )
    if abs(gap - usual) > UNEVEN * usual:
      raise UserError(
        f'{one} and {two} are {gap:.3g} mm apart, other slices of the series {usual:.3g} mm: no '
        'affine places them all\n'
        '  add the slices that are missing, or put those before and after into folders of their own'
      )


def _alike(one: Slice, two: Slice) -> bool:
  """Whether two slices are turned and spaced alike."""
  for a, b in ((one.turn, two.turn), (one.spacing, two.spacing)):
    if (a is None) != (b is None) or (a is not None and not np.allclose(a, b, atol=TOLERANCE)):
      return False
  return True


def read_dicom(paths: Sequence[pathlib.Path]) -> tuple[np.ndarray, Volume, str]:
  """Slices [Z, H, W] of a series in their order, in its units, and a remark. Raises UserError.

  8 bits without a rescale stay bytes. A file has no RescaleSlope outside of CT: then it is 1.
  """
  import pydicom

  pixels, slices = [], []
  for path in paths:
    with reading(path, 'a DICOM slice'):
      file = pydicom.dcmread(path)
      slope, intercept = (float(file.get(k, d)) for k, d in _RESCALE.items())
      units = dicom.units(file, slope, intercept)
      plain = file.BitsStored <= 8 and (slope, intercept) == (1, 0) and not units.min() < 0
      pixels.append(units.astype(np.uint8) if plain else units)
    slices.append(slice_of(path, file))
  with reading(paths[0], 'a DICOM series'):
    affine, remark = affine_of(slices)
    return np.stack(pixels), Volume(affine), remark


_RESCALE = {'RescaleSlope': 1.0, 'RescaleIntercept': 0.0}


def affine_of(slices: Sequence[Slice]) -> tuple[np.ndarray, str]:
  """From column, row, slice to millimetres right, anterior, superior; and what is to be said of it.

  By ImagePositionPatient, ImageOrientationPatient and PixelSpacing (DICOM PS3.3 C.7.6.2), whose
  millimetres run left, posterior, superior. Without them: as if axial, from the origin.
  """
  first, last, n = slices[0], slices[-1], len(slices)
  down, across = (1.0, 1.0) if first.spacing is None else first.spacing.tolist()
  turn = np.eye(3)[:2] if first.turn is None else first.turn
  origin = np.zeros(3) if first.position is None else first.position
  step, remark = first.thick * np.cross(*turn), ''
  if first.position is None or first.turn is None:
    remark = 'no place in the patient: its geometry is that of an axial slice at the origin'
  elif n > 1:
    step = (last.position - origin) / (n - 1)
    gaps = np.diff([one.along for one in slices])
    if np.ptp(gaps) > TOLERANCE * gaps.mean():
      remark = (
        f'slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart, written as {gaps.mean():.3g}'
      )
  affine = np.eye(4)
  affine[:3] = np.stack([turn[0] * across, turn[1] * down, step, origin], 1)
  return np.diag([-1, -1, 1, 1]) @ affine, remark
