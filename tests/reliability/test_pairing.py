"""Predictions and their labels: by place, by name, by a CSV; what is left over is named."""

import os

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.reliability import foreign, pairing


def placed(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b'')


@pytest.mark.parametrize(
  ('labels', 'want'),
  [
    (['fog/1.png', 'night/1.png'], ['fog/1.png', 'night/1.png']),
    (['x/fog/1.png', '1.png'], 'two of its name:\n  .*1.png\n  .*fog/1.png'),
    (['deep/1.png'], ['deep/1.png', 'deep/1.png']),
    (['fog/1.png'], '1 predictions have no label in .*:\n  .*night/1.npy'),
    (['1_gtFine_labelIds.png', '1_gtFine_labelTrainIds.png'], ['1_gtFine_labelTrainIds.png'] * 2),
    (['fog/1.png', 'fog/1_gt_labelIds.png'], 'one image has two labels'),
  ],
)
def test_labels_are_found_by_place_then_by_name(tmp_path, labels, want):
  placed(tmp_path / 'p', 'fog/1.npy', 'night/1.npy')
  placed(tmp_path / 'l', *labels)
  if isinstance(want, str):
    with pytest.raises(UserError, match=want):
      pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
  else:
    found = pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
    assert [str(p.labels[0].relative_to(tmp_path / 'l')) for p in found] == want
    assert [p.id for p in found] == [p.group for p in found] == ['fog/1', 'night/1']


def test_names_with_dots_and_labels_that_are_not_used(tmp_path, capsys):
  placed(tmp_path / 'p', 'beta_0.02.npy')
  kinds = [f'c_gtFine_{k}.png' for k in ('color', 'labelIds', 'labelTrainIds')]
  placed(tmp_path / 'l', 'beta_0.02_gt_labelIds.png', 'beta_0.01_gt_labelIds.png', *kinds)
  (pair,) = pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
  assert (pair.id, pair.labels[0].name) == ('beta_0.02', 'beta_0.02_gt_labelIds.png')
  assert '1 labels in' in capsys.readouterr().err
  placed(tmp_path / 'p', 'beta_0.02_logits.npz')
  with pytest.raises(UserError, match=r'one image has two predictions:\n.*02.npy\n.*logits.npz'):
    pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))


def test_everything_in_a_folder_is_used_or_named(tmp_path, capsys):
  placed(tmp_path / 'p', '1.NPY', '2.pt', '._1.npy', '.DS_Store', 'notes.txt')
  placed(tmp_path, 'elsewhere/3.npz')
  (tmp_path / 'p' / 'linked').symlink_to(tmp_path / 'elsewhere')
  (tmp_path / 'p' / 'loop').symlink_to(tmp_path / 'p')
  placed(tmp_path / 'l', '1.PNG', '2.tif', 'linked/3.bmp', '1.json')
  found = pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
  assert [(p.predictions[0].name, p.labels[0].name) for p in found] == [
    ('1.NPY', '1.PNG'),
    ('3.npz', '3.bmp'),
  ]
  told = capsys.readouterr().err
  assert '2.pt, notes.txt is no prediction: not scored' in told
  assert '1.json is no label' in told
  for name in ('DS_Store', '._1', 'linked', 'loop'):
    assert name not in told
  placed(tmp_path / 'l', '1.png')
  with pytest.raises(UserError, match='one image has two labels'):
    pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
  (tmp_path / 'l' / '1.png').unlink()
  (tmp_path / 'p' / '1.NPY').unlink()
  (tmp_path / 'p' / '1.NPY').mkdir()
  (pair, _) = pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))
  with pytest.raises(UserError, match='1.NPY is a folder, not a file'):
    foreign.open_arrays(pair.predictions[0])
  placed(tmp_path / 'jpegs', '1.jpg', '3.jpg')
  with pytest.raises(UserError, match=r'labels are .png, .*\n  what lies there: 2 of .jpg'):
    pairing.pairs(tmp_path / 'p', str(tmp_path / 'jpegs'))
  placed(tmp_path / 'other', '1.pt', '2.pt')
  with pytest.raises(UserError, match='holds no prediction .*\n  what lies there: 2 of .pt'):
    pairing.pairs(tmp_path / 'other', str(tmp_path / 'l'))


def test_a_name_that_is_no_text_is_refused(tmp_path):
  placed(tmp_path / 'p', os.fsdecode(b'\xff.npy'))
  placed(tmp_path / 'l', os.fsdecode(b'\xff.png'))
  with pytest.raises(UserError, match=r'.udcff.npy. has a name that is no UTF-8'):
    pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))


def test_a_prediction_that_is_there_twice_is_scored_once(tmp_path, capsys):
  placed(tmp_path / 'l', 'deep/1.png')
  for name in ('a/1', 'b/1'):
    placed(tmp_path / 'p', f'{name}.npy')
    np.save(tmp_path / 'p' / f'{name}.npy', np.array([ord(name[0])]))
  assert len(pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))) == 2
  assert '1 predictions share a label with another: b/1' in capsys.readouterr().err
  np.save(tmp_path / 'p' / 'b' / '1.npy', np.array([ord('a')]))
  with pytest.raises(UserError, match='the same prediction twice:\n.*a/1.npy\n.*b/1.npy'):
    pairing.pairs(tmp_path / 'p', str(tmp_path / 'l'))


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    (b'prediction,label\na,b\na,c\n', 'rows 2 and 3 have one prediction, a'),
    (b'prediction,label\na.npy,b\na.npz,c\n', 'rows 2 and 3 have one prediction, a.npz'),
    (b'prediction,label\na,b,c\n', 'row 2 has 3 cells, the header 2'),
    (b'prediction,label,groups\na,b,c\n', "unknown column 'groups'\n  did you mean: group"),
    (b'prediction,label,label\na,b,c\n', "two columns 'label'"),
    (b'prediction,label\n', 'has no row below its header'),
    (b'prediction,label\n' + 5000 * b'x' + b',b\n', '2 files of .* are missing'),
    (b'prediction,label\n' + 200_000 * b'x' + b',b\n', 'cannot be read as CSV'),
    (b'prediction,label\n.,x\n', '2 files of .* are missing'),
    (b'prediction,label\n/dev/zero,/dev/zero\n', '2 files of .* are missing'),
    (b'prediction,label\na/two.npz\n', 'pairs.csv: row 2 lacks a prediction or a label'),
    ('prediction,label\na,b\n'.encode('utf-16'), 'pairs.csv cannot be read as CSV in UTF-8'),
    (b'image,label\na,b\n', r"it has \['image', 'label'\]"),
    (b'', r'it has \[\]'),
    ('prediction,label\na,b\n'.encode('utf-8-sig'), '2 files of .*pairs.csv are missing'),
  ],
)
def test_bad_lists_are_named(tmp_path, raw, message):
  (tmp_path / 'pairs.csv').write_bytes(raw)
  with pytest.raises(UserError, match=message):
    pairing.pairs(tmp_path, str(tmp_path / 'pairs.csv'))
