"""Crops of CT slices around the shipped masks, checked on slices that are plain gradients."""

import os
import warnings

import numpy as np
import pytest

from car_jax.data import opening
from car_jax.datasets import common
from car_jax.datasets.lidc_dicom import lidc_dicom_dataset_builder as builder
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder as lidc_masks
from tests.datasets.files import nothing_prepared, records, run

pydicom = pytest.importorskip('pydicom')
SIDE, INTERCEPT, SLOPE = 512, -1024.0, 2.0
DATA = {k: v for k, v in np.load(lidc_masks.FILE).items() if k != 'masks'}
SERIES = int(DATA['series'][0])
ROWS = np.flatnonzero(DATA['series'] == SERIES)


@pytest.fixture(autouse=True)
def one_series(tmp_path_factory, monkeypatch):
  """The shipped masks of one series only: reading all takes a second."""
  path = tmp_path_factory.mktemp('masks') / 'one.npz'
  data = {k: v if k == 'series_uid' else v[ROWS] for k, v in DATA.items()}
  masks = np.random.default_rng(0).integers(0, 256, (len(ROWS), 8192)).astype(np.uint8)
  np.savez(path, masks=masks, **data)
  monkeypatch.setattr(lidc_masks, 'FILE', path)
  return masks


def hounsfield(x, y):
  return -900 + 2 * x + y / 2


def write_slice(path, z, uid, shift=0.0):
  from pydicom.dataset import FileDataset, FileMetaDataset

  y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
  stored = np.round((hounsfield(x, y) + shift - INTERCEPT) / SLOPE).astype(np.uint16)
  meta = FileMetaDataset()
  meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
  meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
  file = FileDataset(str(path), {}, file_meta=meta, preamble=b'\0' * 128)
  file.SeriesInstanceUID, file.SOPClassUID = uid, meta.MediaStorageSOPClassUID
  file.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
  file.ImagePositionPatient = [0.0, 0.0, float(z)]
  file.Rows = file.Columns = SIDE
  file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
  file.SamplesPerPixel, file.PixelRepresentation = 1, 0
  file.PhotometricInterpretation = 'MONOCHROME2'
  file.RescaleSlope, file.RescaleIntercept = SLOPE, INTERCEPT
  file.PixelData = stored.tobytes()
  path.parent.mkdir(parents=True, exist_ok=True)
  file.save_as(path)


def write_series(root, rows=ROWS):
  uid = DATA['series_uid'][SERIES]
  for n, z in enumerate(sorted({float(DATA['z_mm'][i]) for i in rows})):
    write_slice(root / 'deep' / f'{n:03d}.dcm', z, uid)
  write_slice(root / 'other.dcm', 0, '1.2.3')  # a series that has no nodule
  return root


def test_crops_lie_where_the_masks_do(tmp_path, one_series):
  source = write_series(tmp_path / 's')
  low, high = -900.0, 600.0
  options = ('--low', str(low), '--high', str(high))
  assert run('lidc_dicom', source, tmp_path / 'd', *options) == 0
  split = ('train', 'validation', 'test')[DATA['split'][ROWS[0]]]
  found = records('lidc_dicom/low-900-high600', tmp_path / 'd', split)
  assert len(found) == len(ROWS)
  known = dict(name='lidc_dicom/low-900-high600', data_dir=str(tmp_path / 'd'))
  assert opening.open_dataset(known).info.range == '-900,600 HU'
  offsets = np.arange(128) - 63.5
  for n, i in enumerate(ROWS):
    patient = f'LIDC-IDRI-{DATA["patient"][i]:04d}'
    record = found[f'{patient}/nodule{DATA["nodule"][i]:04d}/z{DATA["z_mm"][i]:+.2f}']
    x, y = (c + offsets / DATA['spacing_mm'][i] for c in DATA['centre_xy_px'][i])
    units = hounsfield(x[None, :], y[:, None])
    want = np.clip((units - low) / (high - low) * 255, 0, 255)
    inside = (x[None] >= 0) & (x[None] <= SIDE - 1) & (y[:, None] >= 0) & (y[:, None] <= SIDE - 1)
    error = np.abs(record['image'][..., 0].astype(float) - want)[inside]
    assert error.max() < 1.5  # stored values have steps of two units, and grey values are cut
    masks = np.unpackbits(one_series[n]).reshape(4, 128, 128)
    np.testing.assert_array_equal(record['labels'], masks)


def test_the_nearest_slice_is_taken_and_air_is_outside():
  crop = builder.cut(np.full((64, 64), 50, np.float32), np.array([0.0, 0.0]), 1.0)
  assert crop.shape == (128, 128)
  assert crop[0, 0] == -1000
  assert crop[100, 100] == 50


def test_a_missing_slice_is_named(tmp_path, capsys):
  heights = sorted({float(DATA['z_mm'][i]) for i in ROWS})
  kept = [i for i in ROWS if DATA['z_mm'][i] != heights[0]]
  gap = heights[1] - heights[0]
  assert gap > 2, 'choose another series'
  assert run('lidc_dicom', write_series(tmp_path / 's', kept), tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert f'no slice at z {heights[0]:.2f} mm; nearest {heights[1]:.2f}' in told
  assert str(DATA['series_uid'][SERIES]) in told
  assert nothing_prepared(tmp_path / 'd')


def test_unreadable_files_are_named(tmp_path, capsys):
  source = write_series(tmp_path / 's')
  (source / 'broken.dcm').write_text('no DICOM at all')
  damaged = source / 'deep' / '000.dcm'
  damaged.write_bytes(damaged.read_bytes()[:5000])
  assert run('lidc_dicom', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert 'broken.dcm cannot be read as DICOM' in told
  assert '000.dcm cannot be read as the pixels of a CT slice' in told
  assert nothing_prepared(tmp_path / 'd')


def test_a_folder_without_dicom(tmp_path, capsys):
  (tmp_path / 's/deep').mkdir(parents=True)
  assert run('lidc_dicom', tmp_path / 's', tmp_path / 'd') == 2
  assert 'holds no DICOM file of a LIDC-IDRI series' in capsys.readouterr().err


def edited(path, **values):
  file = pydicom.dcmread(path)
  for key, value in values.items():
    if value is None:
      delattr(file, key)
    else:
      setattr(file, key, value)
  file.save_as(path)


@pytest.mark.parametrize(
  ('values', 'reason'),
  [
    ({'RescaleSlope': None}, 'RescaleSlope'),
    ({'RescaleSlope': 'nan'}, 'its RescaleSlope is nan'),
    ({'RescaleSlope': 0}, 'its RescaleSlope is 0.0'),
    ({'RescaleIntercept': 1e300}, 'RescaleIntercept 1e+300'),
    ({'RescaleIntercept': None}, 'RescaleIntercept'),
    ({'NumberOfFrames': 2}, '2 frames; one is expected'),
    ({'PhotometricInterpretation': 'MONOCHROME1'}, 'MONOCHROME1, no MONOCHROME2'),
    ({'SamplesPerPixel': 3}, '3 samples per pixel'),
    ({'Columns': 1}, 'bytes of pixels; its header says 1024'),
    ({'Rows': 65535}, 'bytes of pixels; its header says'),
    ({'PixelData': None}, 'PixelData'),
  ],
)
def test_slices_whose_numbers_mean_something_else_are_named(tmp_path, values, reason):
  problems = common.Problems()
  write_slice(tmp_path / 'x.dcm', 0, '1.2')
  plain = builder.read_units(tmp_path / 'x.dcm', problems)
  assert plain.shape == (SIDE, SIDE)
  assert not problems.lines
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    edited(tmp_path / 'x.dcm', **values)
    assert builder.read_units(tmp_path / 'x.dcm', problems) is None
  (line,) = problems.lines
  assert f'{tmp_path}/x.dcm cannot be read as the pixels of a CT slice' in line
  assert reason in line


def test_two_slices_of_one_place_must_be_one(tmp_path):
  wanted, problems = {'1.2': 0}, common.Problems()
  write_slice(tmp_path / 'a.dcm', 5, '1.2')
  (tmp_path / 'b.dcm').write_bytes((tmp_path / 'a.dcm').read_bytes())
  (tmp_path / 'a.dcm.bak').touch()
  assert builder.find_slices(tmp_path, wanted, problems) == {0: {5.0: tmp_path / 'a.dcm'}}
  assert not problems.lines
  assert 'no .dcm file, not read' in problems.notes
  write_slice(tmp_path / 'c.dcm', 5, '1.2', shift=9)
  os.mkfifo(tmp_path / 'd.dcm')
  builder.find_slices(tmp_path, wanted, problems)
  second, pipe = problems.lines
  assert f'c.dcm: another slice of the same series at z 5.00 mm, as is {tmp_path}/a.dcm' in second
  assert 'd.dcm is no regular file but a pipe' in pipe
