"""What a user gets wrong is one message, and names that could mean two things are not guessed."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from car_jax import pictures
from car_jax.commands import eval as evaluation
from car_jax.errors import UserError
from car_jax.predictions import command, grouping
from car_jax.predictions.dataset import Dataset

SIZE = (4, 6)
MAP = np.zeros(SIZE, np.uint8)
PROBS = np.full((2, *SIZE, 2), 0.5, np.float32)


def put(path, value=MAP):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.npz':
    np.savez(path, **value)
  elif path.suffix == '.npy':
    np.save(path, value)
  elif isinstance(value, list):
    first, *rest = map(Image.fromarray, value)
    first.save(path, save_all=True, append_images=rest)
  else:
    Image.fromarray(value).save(path)


def made(root, predictions, labels):
  for place, of in (('p', predictions), ('l', labels)):
    for name, value in (of if isinstance(of, dict) else dict.fromkeys(of, MAP)).items():
      put(root / place / name, value)
  return root / 'p', str(root / 'l')


def of_three(value):
  return np.full(SIZE, value, np.uint8)


@pytest.mark.parametrize(
  ('predictions', 'labels', 'options', 'message'),
  [
    (['a.npy'], ['b.npy'], {}, r'1 predictions have no label(.|\n)*did you mean|known'),
    ({'a.npy': np.zeros((3, 5), int)}, ['a.npy'], {}, r'shape \(3, 5\); of class ids expected'),
    (
      {'a.npz': dict(samples=MAP[None], weights=np.array([-1.0]))},
      ['a.npy'],
      {},
      'weights from -1 to -1\n  a weight is a number of at least 0',
    ),
    (
      {'a.npz': dict(samples=np.stack([MAP] * 3), weights=np.ones(2))},
      ['a.npy'],
      {},
      r'shape \(2,\); expected one for each of the 3 samples',
    ),
    ({'a.npy': of_three(3)}, ['a.npy'], dict(classes='2'), 'class id 3; expected 0 to 1'),
    ({'a.npy': of_three(3)}, ['a.npy'], {}, r'a has class 3\n  give --classes 4 \(or more\)'),
    (
      {'a.npy': of_three(0) + 255 * np.eye(4, 6, dtype=np.uint8)},
      ['a.npy'],
      dict(classes='2'),
      r'class id 255.*\n  write masks as \(mask > 0\)',
    ),
    (['a.npy'], {'a.npy': of_three(7)}, dict(classes='4'), 'label 7 is no class.*$'),
    (
      ['a.npy'],
      {'a.png': of_three(26)},
      dict(classes='19'),
      r'label 26 is no class.*\n.*label ids.*\*_labelIds.png',
    ),
    ({'a.npy': of_three(1).astype(np.float32)}, ['a.npy'], {}, r'write them with .astype'),
    (['a.npy'], {'a.npy': MAP.astype(float)}, {}, r'labels of type float64\n  write them with'),
    (['a.npy'], {'a.npz': dict(one=MAP, two=MAP)}, {}, 'name the labels readers or labels'),
    (['a.npy'], {'a.npy': MAP[0]}, {}, r'labels of shape \(6,\)'),
    (
      {'a.npz': dict(sample=MAP, weights=np.ones(1), other=MAP)},
      ['a.npy'],
      {},
      'which one is scored.*\n  did you mean: samples',
    ),
    ({'a.npy': np.ones((4, 4, 4))}, {'a.npy': MAP[:, :4]}, {}, 'either axis may be the classes'),
    (
      {'a.npy': np.ones((2, 3, 3), np.float32)},
      ['a.npy'],
      {},
      'no axis is surely the classes\n.*--classes NUMBER, .*; and --resize bilinear',
    ),
    (
      {'a.npz': dict(samples=MAP[None], probabilities=PROBS)},
      ['a.npy'],
      {},
      '1 samples and 2 of their probabilities',
    ),
    (
      {'a/0.npy': MAP[None].repeat(2, 0), 'a/1.npy': MAP},
      ['a.npy'],
      {},
      '0.npy holds 2 samples, one of 2 files',
    ),
    (
      {'a/0.npy': PROBS[0], 'a/1.npy': MAP},
      ['a.npy'],
      {},
      '1.npy holds label maps, .*probabilities',
    ),
    (
      {'a.npy': MAP, 'b.npy': PROBS},
      ['a.npy', 'b.npy'],
      dict(classes='2'),
      'b holds probabilities, files before it label maps',
    ),
    (['a.npy'], {'a/0.png': MAP, 'a/1.png': MAP[1:]}, {}, r'6 x 4 pixels, .*6 x 3: readers of one'),
    (['a.npy'], {'a/0.npy': MAP[None].repeat(2, 0), 'a/1.npy': MAP}, {}, 'holds 2 readers, one of'),
    ({'a.tif': [MAP, MAP[1:]]}, ['a.npy'], {}, 'pages of several sizes'),
    (['a.npy'], ['a.npy'], dict(classes='a'), '--classes a: expected 2 to 254 names'),
    (['a.npy'], ['a.npy'], dict(classes='1'), '1 classes; expected 2 to 254'),
    (['a.npy'], ['a.npy'], dict(file_per='sample'), 'no names such as IMAGE/0.png'),
  ],
)
def test_mistakes_are_named(tmp_path, predictions, labels, options, message):
  folder, place = made(tmp_path, predictions, labels)
  with pytest.raises(UserError, match=message):
    Dataset([('p', str(folder))], place, **options)


def test_all_that_predict_wrote_is_not_scored_at_once(tmp_path):
  folder, place = made(tmp_path, ['masks/a.png', 'samples/a.npy', 'probabilities/a.npy'], ['a.png'])
  (folder / 'settings.json').write_text('{}')
  parts = f'{folder / "samples"} or {folder / "probabilities"} or {folder / "masks"}'
  with pytest.raises(UserError, match=f'is the output of car-jax predict\n  give {parts}'):
    Dataset([('p', str(folder))], place)
  assert len(Dataset([('p', str(folder / 'samples'))], place)) == 1


def test_converted_label_ids_are_said_once(tmp_path, capsys):
  folder, place = made(tmp_path, ['a.png', 'b.png'], {'a_gtFine_labelIds.png': of_three(26)})
  put(tmp_path / 'l/b_gtFine_labelIds.png', of_three(7))
  data = Dataset([('p', str(folder)), ('q', str(folder))], place, classes='19')
  assert np.unique(data[0]['labels']) == 13
  said = "2 label files are named *labelIds: their ids become Cityscapes' train ids, 0 to 18"
  assert capsys.readouterr().err.count(said) == 1
  Dataset([('p', str(folder))], str(folder), classes='19')
  assert 'train ids' not in capsys.readouterr().err


def layout(root, predictions, labels, file_per=''):
  folder, place = made(root, predictions, labels)
  return {
    g.id: (len(g.predictions), len(g.labels)) for g in grouping.groups(folder, place, file_per)
  }


def numbered(pattern, images, count, first=0):
  return [pattern.format(i, k) for i in images for k in range(first, first + count)]


@pytest.mark.parametrize(
  ('predictions', 'labels', 'want'),
  [
    (['a.npy', 'b.npy'], ['a.png', 'b.png'], {'a': (1, 1), 'b': (1, 1)}),
    (numbered('{}/{}.png', 'ab', 5), ['a.png', 'b.png'], {'a': (5, 1), 'b': (5, 1)}),
    (numbered('x/{}/{}.npy', 'ab', 5, 1), ['a.npy', 'b.npy'], {'x/a': (5, 1), 'x/b': (5, 1)}),
    (numbered('{}_{}.png', 'ab', 3), ['a.png', 'b.png'], {'a': (3, 1), 'b': (3, 1)}),
    (['a.npy', 'b.npy'], numbered('{}/{}.png', 'ab', 4), {'a': (1, 4), 'b': (1, 4)}),
    (numbered('{}_s{}.npy', 'ab', 3), numbered('{}/r{}.png', 'ab', 2), {'a': (3, 2), 'b': (3, 2)}),
    (['a_s3.png', 'a_s9.png'], ['a.png'], {'a': (2, 1)}),  # after a word numbers may have gaps
    (['f_0.npy', 'f_1.npy'], ['f_0.png', 'f_1.png'], {'f_0': (1, 1), 'f_1': (1, 1)}),
    (
      numbered('{}/00029{}.npy', 'ab', 2, 4),
      numbered('{}/00029{}.png', 'ab', 2, 4),
      dict.fromkeys(['a/000294', 'a/000295', 'b/000294', 'b/000295'], (1, 1)),
    ),
    (['a_b_000001_000019.npy'], ['a_b_000001_000019.png'], {'a_b_000001_000019': (1, 1)}),
  ],
)
def test_a_layout_follows_from_names(tmp_path, predictions, labels, want):
  assert layout(tmp_path, predictions, labels) == want


@pytest.mark.parametrize('pattern', ['{}/{}.png', '{}_{}.png'])
@pytest.mark.parametrize('samples', [4, 6])
def test_names_that_could_be_images_or_samples_are_not_guessed(tmp_path, pattern, samples):
  names = numbered(pattern, 'ab', samples), numbered(pattern, 'ab', 4)
  with pytest.raises(UserError, match=r'2 ways:\n(.*\n){2}.*--file-per image or --file-per sample'):
    layout(tmp_path, *names)
  assert layout(tmp_path, *names, 'sample') == {'a': (samples, 4), 'b': (samples, 4)}
  if samples == 4:
    assert len(layout(tmp_path, *names, 'image')) == 8
  else:
    with pytest.raises(UserError, match='4 predictions have no label'):
      layout(tmp_path, *names, 'image')


def test_samples_are_in_the_order_of_their_numbers(tmp_path):
  folder, place = made(tmp_path, numbered('{}_{}.png', 'a', 12), ['a.png'])
  (group,) = grouping.groups(folder, place)
  assert [p.stem for p in group.predictions] == [f'a_{k}' for k in range(12)]


def test_a_frame_without_a_label_does_not_make_samples_of_frames(tmp_path):
  """Ten frames and nine labels: no image `f` of ten samples and nine readers."""
  with pytest.raises(UserError, match='can be read in 2 ways'):
    layout(tmp_path, numbered('{}_{}.png', 'f', 10), numbered('{}_{}.png', 'f', 9))


def test_no_row_takes_the_name_of_the_readers(tmp_path):
  folder, place = made(tmp_path, ['a.npy'], ['a.npy'])
  with pytest.raises(
    UserError, match="two rows would be called 'readers'\n  give --predictions NA"
  ):
    Dataset([('readers', str(folder))], place)


def test_masks_of_one_bit_are_of_two_classes(tmp_path):
  half = np.arange(24).reshape(SIZE) % 2 == 0
  folder, place = made(
    tmp_path, {'a.png': half, 'b.tif': [half, ~half]}, {'a.png': half, 'b.npy': half}
  )
  data = Dataset([('p', str(folder))], place)
  batch = next(data.batches())
  assert data.info.num_classes == 2
  np.testing.assert_array_equal(batch['labels'][:, 0], [half, half])
  np.testing.assert_array_equal(batch['prediction 0/labels'], [[half, 0 * half], [half, ~half]])
  np.testing.assert_array_equal(batch['prediction 0/weight'], [[1, 0], [0.5, 0.5]])


def test_folders_of_other_images_are_not_compared(tmp_path):
  put(tmp_path / 'q' / 'b.npy')
  folder, place = made(tmp_path, ['a.npy', 'b.npy'], ['a.npy', 'b.npy'])
  given = [('p', str(folder)), ('q', str(tmp_path / 'q'))]
  with pytest.raises(UserError, match=r'1 images of .*p have no prediction in .*q:\n  a\n'):
    Dataset(given, place)


def test_options_are_judged_before_files_are_read(tmp_path, capsys):
  nowhere = ['--predictions', str(tmp_path / 'nowhere'), '--out', str(tmp_path / 'out')]
  for more, message in (
    (['--config.report.metric=ged'], 'did you mean: report.metrics'),
    (['--config.report.absent=two'], 'report.absent'),
    (['--config.steps=3'], 'unknown config key'),
    ([], 'no folder of predictions'),
    (['--step', '3'], '--step belongs to --checkpoint'),
  ):
    assert evaluation.main([*nowhere, *more]) == 2
    assert message in capsys.readouterr().err
  with pytest.raises(SystemExit, match='2'):
    evaluation.main([*nowhere, '--file-per', 'pixel'])


def test_more_samples_than_there_are_cannot_be_asked_for(tmp_path):
  folder, place = made(tmp_path, ['a.npy'], ['a.npy'])
  changes = [('report.metrics', "('ged16',)")]
  with pytest.raises(UserError, match='ged16: 16 samples; the largest number is 1'):
    command.evaluate([str(folder)], place, tmp_path / 'out', changes=changes)


def test_what_is_left_over_is_named(tmp_path, capsys):
  folder, place = made(tmp_path, ['a.npy'], ['a.png', 'c.png'])
  (folder / 'notes.txt').write_text('')
  (pathlib.Path(place) / 'readme.md').write_text('')
  grouping.groups(folder, place)
  messages = capsys.readouterr().err
  assert 'notes.txt is no prediction' in messages
  assert '1 labels in' in messages
  assert 'readme.md is no label' in messages


def test_pages_of_a_tiff_come_in_their_order(tmp_path):
  for kind in (np.uint8, np.uint16, bool):
    values = [np.full(SIZE, k).astype(kind) for k in range(3)]
    put(tmp_path / 'x.tif', values)
    pages = pictures.open_pages(tmp_path / 'x.tif')
    np.testing.assert_array_equal([page.values for page in pages], values)
  with pytest.raises(UserError, match='3 pages or frames; one is expected'):
    pictures.open_picture(tmp_path / 'x.tif')
  put(tmp_path / 'x.png')
  assert len(pictures.open_pages(tmp_path / 'x.png')) == 1
  put(tmp_path / 'x.gif', [MAP, MAP + 1])
  with pytest.raises(UserError, match='2 pages or frames; one is expected'):
    pictures.open_pages(tmp_path / 'x.gif')
