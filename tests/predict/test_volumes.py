"""Where volumes lie: slices as they are seen, and maps back at the same place in the patient."""

import itertools

import nibabel
import numpy as np
import pydicom
import pytest

from car_jax.errors import UserError
from car_jax.predict import volumes
from tests.predict.models import PLACE, STEP, TURN, units, write_nifti, write_series

AXIAL = np.array([[-0.7, 0, 0, 30], [0, -0.9, 0, 40], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])


def sliced(paths):
  return {path: volumes.slice_of(path, volumes.dicom_header(path)) for path in paths}


def series(folder):
  paths = sorted(folder.glob('*.dcm'))
  ordered = volumes.in_order(sliced(paths))
  return volumes.read_dicom(ordered)


def test_a_nifti_file_and_a_dicom_series_of_one_volume_are_the_same(tmp_path):
  volume = units(5, 12, 9)
  write_nifti(tmp_path / 'v.nii.gz', volume, AXIAL)
  write_series(tmp_path / 's', volume)
  slices, at = volumes.read_nifti(tmp_path / 'v.nii.gz')
  others, there, remark = series(tmp_path / 's')
  np.testing.assert_array_equal(slices, volume)
  np.testing.assert_array_equal(others, volume)
  np.testing.assert_allclose(there.affine, AXIAL)
  np.testing.assert_allclose(at.affine, AXIAL)
  assert at.spacing == pytest.approx((0.7, 0.9, 2.5))
  assert not remark


@pytest.mark.parametrize('order', [*itertools.permutations(range(3))])
@pytest.mark.parametrize('signs', [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_slices_are_seen_alike_however_they_are_stored(order, signs):
  """Voxels hold their place in the patient; a slice runs to the left or back, and back or down."""
  shape, affine = (4, 5, 6), np.eye(4)
  affine[:3, :3] = np.diag(signs) @ np.eye(3)[list(order)]
  ijk = np.stack(np.indices(shape), -1)
  world = ijk @ affine[:3, :3].T  # right, anterior, superior
  at = volumes.of_affine(affine)
  seen = np.stack([at.seen(world[..., k]) for k in range(3)], -1)
  down, across = (np.diff(seen, axis=axis).reshape(-1, 3)[0] for axis in (1, 2))
  assert across.tolist() in ([-1, 0, 0], [0, -1, 0])
  assert down.tolist() in ([0, -1, 0], [0, 0, -1])
  np.testing.assert_array_equal(at.stored(seen), world)
  assert len(seen) == shape[2]


@pytest.mark.parametrize(
  'turn', [TURN, (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)]
)
def test_a_voxel_of_a_written_mask_lies_where_its_dicom_pixel_does(tmp_path, turn):
  volume = units(4, 7, 6)
  write_series(tmp_path / 's', volume, turn=turn)
  slices, at, _ = series(tmp_path / 's')
  np.testing.assert_array_equal(slices, volume)
  z, row, column = 2, 5, 1
  mask = np.zeros(slices.shape, np.uint8)
  mask[z, row, column] = 3
  at.save(tmp_path / 'm.nii.gz', at.stored(mask), 'mask')
  read = nibabel.load(tmp_path / 'm.nii.gz')
  assert read.get_data_dtype() == np.uint8
  assert read.shape == (6, 7, 4)
  (voxel,) = np.argwhere(np.asarray(read.dataobj) == 3)
  along, down = np.array(turn[:3]), np.array(turn[3:])  # DICOM PS3.3, C.7.6.2.1.1
  point = np.array(PLACE) + along * STEP[1] * column + down * STEP[0] * row
  point = point + np.cross(along, down) * STEP[2] * z
  found = read.affine @ [*voxel, 1]
  np.testing.assert_allclose(found[:3], point * [-1, -1, 1], atol=1e-4)


def test_headers_are_kept(tmp_path):
  image = nibabel.Nifti1Image(np.zeros((5, 6, 4), np.int16), AXIAL)
  image.header.set_xyzt_units('mm', 'sec')
  image.header['qform_code'], image.header['sform_code'] = 1, 2
  image.header.set_slope_inter(2, 0)
  image.header['cal_max'] = 400
  nibabel.save(image, tmp_path / 'v.nii')
  _, at = volumes.read_nifti(tmp_path / 'v.nii')
  probs = np.random.default_rng(0).random((5, 6, 4, 3)).astype(np.float32)
  at.save(tmp_path / 'p.nii.gz', probs, 'probabilities')
  read = nibabel.load(tmp_path / 'p.nii.gz')
  np.testing.assert_array_equal(np.asarray(read.dataobj), probs)
  np.testing.assert_allclose(read.affine, AXIAL, atol=1e-6)
  assert read.header.get_xyzt_units()[0] == 'mm'
  assert (read.header['qform_code'], read.header['sform_code']) == (1, 2)
  assert read.header['cal_max'] == 0


def test_values_are_scaled_as_the_header_says(tmp_path):
  image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), AXIAL)
  image.header.set_slope_inter(2, -1024)
  nibabel.save(image, tmp_path / 'v.nii.gz')
  slices, at = volumes.read_nifti(tmp_path / 'v.nii.gz')
  assert at.stored(slices)[1, 2, 3] == nibabel.load(tmp_path / 'v.nii.gz').get_fdata()[1, 2, 3]


@pytest.mark.parametrize('shape', [(4, 4, 4, 2), (4, 0, 4), (4,)])
def test_arrays_that_are_no_volume_are_named(tmp_path, shape):
  nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / 'v.nii')
  with pytest.raises(UserError, match=r'v.nii cannot be read as NIfTI .*a volume \[X, Y, Z\]'):
    volumes.read_nifti(tmp_path / 'v.nii')


def test_slices_that_are_no_volume_are_named(tmp_path):
  volume = units(3, 6, 5)
  write_series(tmp_path / 'twice', volume)
  write_series(tmp_path / 'twice' / 'again', volume[:1])
  first = next((tmp_path / 'twice' / 'again').iterdir())
  first.rename(tmp_path / 'twice' / 'again.dcm')
  with pytest.raises(UserError, match='two slices of one place'):
    series(tmp_path / 'twice')
  write_series(tmp_path / 'sizes', volume)
  write_series(tmp_path / 'other', volume[:1, :4], place=(0, 0, 50))
  next((tmp_path / 'other').iterdir()).rename(tmp_path / 'sizes' / 'other.dcm')
  with pytest.raises(UserError, match='differs in size, orientation or spacing'):
    series(tmp_path / 'sizes')


def test_a_series_that_lacks_a_slice_is_refused(tmp_path):
  """One distance between slices is written, so those after the gap would lie elsewhere."""
  write_series(tmp_path / 's', units(6, 6, 5))
  ordered = volumes.in_order(sliced((tmp_path / 's').iterdir()))
  ordered[2].unlink()
  gap = rf'{ordered[1]} and {ordered[3]} are 5 mm apart, other slices of the series 2.5 mm'
  with pytest.raises(UserError, match=gap):
    series(tmp_path / 's')


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('ImagePositionPatient', [1.0, 2.0]),
    ('ImageOrientationPatient', [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
    ('ImageOrientationPatient', [1.0, 0.0, 0.0]),
    ('PixelSpacing', [0.0, 1.0]),
    ('PixelSpacing', [1.0]),
  ],
)
def test_a_place_that_no_slice_has_is_named(tmp_path, key, value):
  write_series(tmp_path / 's', units(3, 6, 5))
  path = sorted((tmp_path / 's').iterdir())[1]
  file = pydicom.dcmread(path)
  setattr(file, key, value)
  file.save_as(path)
  with pytest.raises(UserError, match=f'{path} cannot be read as a DICOM slice'):
    series(tmp_path / 's')


def test_slices_that_are_nearly_even_are_said(tmp_path):
  write_series(tmp_path / 's', units(4, 6, 5))
  for path in (tmp_path / 's').iterdir():
    file = pydicom.dcmread(path)
    along = np.cross(*np.reshape(file.ImageOrientationPatient, (2, 3)))
    if abs(np.dot(along, np.array(file.ImagePositionPatient) - PLACE) - 5) < 1e-3:
      file.ImagePositionPatient = [*(np.array(file.ImagePositionPatient) + 0.1 * along)]
      file.save_as(path)
  _, at, remark = series(tmp_path / 's')
  assert remark == 'slices are 2.4 to 2.6 mm apart, written as 2.5'
  assert at.spacing[2] == pytest.approx(2.5)


def test_a_slice_without_a_place_or_a_rescale(tmp_path):
  write_series(tmp_path / 's', units(1, 6, 5))
  (path,) = (tmp_path / 's').iterdir()
  file = pydicom.dcmread(path)
  for key in ('ImagePositionPatient', 'RescaleSlope', 'RescaleIntercept'):
    delattr(file, key)
  file.save_as(path)
  slices, at, remark = series(tmp_path / 's')
  np.testing.assert_array_equal(slices, units(1, 6, 5) + 1024)
  assert 'no place in the patient' in remark
  np.testing.assert_allclose(at.affine[:3, 3], 0)
