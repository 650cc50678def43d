"""Masks of 0 and 255, tables with a file of each reader, sets of several sizes, volumes."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from car_jax.commands import score
from car_jax.errors import UserError
from car_jax.predictions import sources
from car_jax.predictions.dataset import Dataset
from car_jax.reliability import pairing

BOTH = '0:background,255:disc'


def write(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.png':
    Image.fromarray(array).save(path)
  else:
    np.savez(path, samples=array)


@pytest.fixture
def maps():
  """Two images' readers [2, 3, 8, 9] and samples [2, 4, 8, 9], of two classes."""
  rng = np.random.default_rng(0)
  return tuple(rng.integers(0, 2, (2, n, 8, 9), np.uint8) for n in (3, 4))


def batch_of(data):
  (batch,) = data.batches()
  return batch


def test_a_table_names_a_file_of_each_reader_and_the_patient(tmp_path, maps):
  readers, samples = maps
  for i, image in enumerate('ab'):
    write(tmp_path / 'predictions' / f'{image}.npz', samples[i])
    for reader, name in zip(readers[i], ('anna', 'ben', 'carl'), strict=True):
      write(tmp_path / image / f'{name}.png', reader)
  table = tmp_path / 'table.csv'
  table.write_text(
    'prediction,label,group\na.npz,a,patient 1\nb.npz,b/carl.png; b/anna.png,patient 1\n'
  )
  batch = batch_of(Dataset([('x', str(tmp_path / 'predictions'))], str(table)))
  assert [*batch['group']] == ['patient 1'] * 2
  np.testing.assert_array_equal(batch['labels'][0], readers[0])
  np.testing.assert_array_equal(batch['labels'][1][:2], readers[1][[2, 0]])
  assert (batch['label_weight'][1] > 0).tolist() == [True, True, False]
  table.write_text('prediction,label\na.npz,a/anna.png;a/dora.png\n')
  with pytest.raises(UserError, match=r'1 files of .* are missing:\n  label .*dora'):
    Dataset([('x', str(tmp_path / 'predictions'))], str(table))


def test_a_table_names_a_file_of_each_sample(tmp_path, maps):
  readers, samples = maps
  for k, sample in enumerate(samples[0][:2]):
    write(tmp_path / f's{k}.png', sample)
  write(tmp_path / 'label.png', readers[0, 0])
  table = tmp_path / 'table.csv'
  table.write_text('prediction,label\ns0.png;s1.png,label.png\n')
  batch = batch_of(Dataset([('x', str(tmp_path))], str(table)))
  np.testing.assert_array_equal(batch['prediction 0/labels'][0], samples[0][:2])
  with pytest.raises(UserError, match='2 predictions; reliability is scored on one'):
    pairing.pairs(tmp_path, str(table))
  table.write_text('prediction,label\ns0.png;s1.png,label.png\ns1.png,label.png\n')
  with pytest.raises(UserError, match='rows 2 and 3 have one prediction'):
    Dataset([('x', str(tmp_path))], str(table))


def test_masks_of_0_and_255(tmp_path, maps, capsys):
  readers, samples = maps
  for i, image in enumerate('ab'):
    write(tmp_path / 'labels' / f'{image}.png', readers[i, 0] * np.uint8(255))
    write(tmp_path / 'masks' / f'{image}.png', samples[i, 0] * np.uint8(255))
    write(tmp_path / 'ids' / f'{image}.png', samples[i, 0])
  for folder in ('masks', 'ids'):  # before anything is scored
    place = [str(tmp_path / folder), '--labels', str(tmp_path / 'labels'), '--out', 'never']
    assert score.main(place) == 2
    assert f'--classes {BOTH.replace("disc", "foreground")}' in capsys.readouterr().err
  labels = str(tmp_path / 'labels')
  for folder, classes in (('masks', BOTH), ('ids', f'{BOTH},1:disc')):
    data = Dataset([('x', str(tmp_path / folder))], labels, classes=classes)
    assert data.info.class_names == ('background', 'disc')
    assert data.info.ignore_label is None
    batch = batch_of(data)
    np.testing.assert_array_equal(batch['labels'][:, 0], readers[:, 0])
    np.testing.assert_array_equal(batch['prediction 0/labels'][:, 0], samples[:, 0])
  with pytest.raises(UserError, match=r'a\.png: a map has 1; --classes names 0, 255'):
    Dataset([('x', str(tmp_path / 'ids'))], labels, classes=BOTH)


@pytest.mark.parametrize('text', ['0:a', '0:a,b', '0:a,0:b', 'a,a', '0:a,1:a', '0:,1:b'])
def test_classes_that_make_no_sense(text, tmp_path, maps):
  write(tmp_path / 'a.png', maps[0][0, 0])
  with pytest.raises(UserError, match=f'--classes {text}: expected'):
    Dataset([('x', str(tmp_path))], str(tmp_path), classes=text)


def test_volumes_are_their_slices(tmp_path):
  rng = np.random.default_rng(0)
  affine = np.diag([-0.7, 0.7, 2.5, 1])  # stored upside down
  readers = rng.integers(0, 2, (2, 9, 8, 3))  # M, X, Y, Z
  samples, probs = rng.integers(0, 2, (9, 8, 3, 4), np.uint8), rng.random((9, 8, 3), np.float32)
  save = lambda x, path: nibabel.save(nibabel.Nifti1Image(x, affine), path)
  for folder in ('labels/scan', 'samples', 'probs'):
    (tmp_path / folder).mkdir(parents=True)
  for reader, name in zip(readers, ('anna', 'ben'), strict=True):
    save(reader.astype(np.float64), tmp_path / 'labels' / 'scan' / f'{name}.nii.gz')
  save(samples, tmp_path / 'samples' / 'scan.nii.gz')
  save(np.stack([1 - probs, probs], -1), tmp_path / 'probs' / 'scan.nii')
  given = [(name, str(tmp_path / name)) for name in ('samples', 'probs')]
  data = Dataset(given, str(tmp_path / 'labels'))
  assert data.ids == ['scan_1', 'scan_2', 'scan_3']
  batch = batch_of(data)
  assert [*batch['group']] == ['scan'] * 3
  seen = lambda x: np.moveaxis(x[:, ::-1], (2, 1, 0), (0, 1, 2))  # [X, Y, Z, ..] -> [Z, H, W, ..]
  for m in range(2):
    np.testing.assert_array_equal(batch['labels'][:, m], seen(readers[m]))
  for n in range(4):
    np.testing.assert_array_equal(batch['prediction 0/labels'][:, n], seen(samples[..., n]))
  np.testing.assert_allclose(batch['prediction 1/mean'][..., 1], seen(probs), atol=1e-6)
  nibabel.save(nibabel.Nifti1Image(samples, np.eye(4)), tmp_path / 'samples' / 'scan.nii.gz')
  with pytest.raises(UserError, match='lies elsewhere than .*affines differ'):
    Dataset(given[:1], str(tmp_path / 'labels'))


def test_a_study_says_that_label_ids_are_converted(tmp_path, maps, capsys):
  write(tmp_path / 'p' / 'a.png', maps[1][0, 0])
  write(tmp_path / 'labels' / 'a_gtFine_labelIds.png', np.full((8, 9), 7, np.uint8))
  _, labels = sources.of_study('x', tmp_path / 'p', str(tmp_path / 'labels'))
  assert '1 label files are named *labelIds' in capsys.readouterr().err
  assert (labels.raw('a') == 0).all()  # road


def test_sets_of_several_sizes_are_said(tmp_path, maps, capsys):
  readers, samples = maps
  for i, image in enumerate('ab'):
    write(tmp_path / 'four' / f'{image}.npz', samples[i])
    write(tmp_path / 'two' / f'{image}.npz', samples[i][:2])
    write(tmp_path / 'labels' / f'{image}.png', readers[i, 0])
  given = [(name, str(tmp_path / name)) for name in ('four', 'two')]
  labels = str(tmp_path / 'labels')
  text = Dataset(given, labels).uneven
  assert '(four 4, two 2)' in text
  assert '--config.report.samples=2' in text
  assert Dataset(given[:1], labels).uneven == ''
