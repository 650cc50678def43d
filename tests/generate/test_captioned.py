"""Scenes with captions: of files and drawn, and what is said of files that cannot be used."""

import json

import numpy as np
import pytest
from PIL import Image

from car_jax.data import opening
from car_jax.errors import UserError
from car_jax.generate import captions, style

FOLDER = 'target/train/aachen'


def written(root, count=4, height=16):
  """Files laid out as the published jsonl has them; images hold their labels as grey."""
  rng, lines = np.random.default_rng(0), []
  for kind in ('target', 'seg'):
    (root / f'{kind}/train/aachen').mkdir(parents=True)
  for k in range(count):
    ids = rng.integers(0, 34, (height, 2 * height), dtype=np.uint8)
    image, condition = (f'{x}/train/aachen/{k}_leftImg8bit.png' for x in ('target', 'seg'))
    Image.fromarray(np.repeat(ids[..., None] * 7, 3, 2)).save(root / image)
    Image.fromarray(ids).save(root / f'seg/train/aachen/{k}_gtFine_labelIds.png')
    lines.append(dict(image=image, conditioning_image=condition, text=f'scene number {k}'))
  write(root, lines)
  return lines


def write(root, lines):
  text = ''.join(line if isinstance(line, str) else json.dumps(line) + '\n' for line in lines)
  (root / 'train.jsonl').write_text(text)


def options(root=None, **more):
  given = dict(name='captioned', batch=4, size=8, threads=0) | more
  if root is not None:
    given |= dict(root=str(root), captions=str(root / 'train.jsonl'))
  return given


def batches(given, count=2, start=0, split='train', **hosts):
  stream = opening.open_dataset(given).split(split).train_batches(seed=3, start_step=start, **hosts)
  return [batch for _, batch in zip(range(count), stream, strict=False)]


def test_a_batch_of_files(tmp_path):
  written(tmp_path)
  given = options(tmp_path)
  (batch,) = batches(given, 1)
  assert batch['image'].shape == (4, 8, 8, 3)
  assert batch['hint'].shape == (4, 8, 8, 1)
  ids = style.labels_of_hint(batch['hint'][0])  # the picture shows the same cut as the labels
  np.testing.assert_array_equal(style.pixels(batch['image'][0])[..., 0], ids * 7)
  words = opening.open_dataset(given).split('train').words
  texts = [f'scene number {name[0]}' for name in batch['id']]
  np.testing.assert_array_equal(batch['tokens'], words(texts))
  assert sorted(texts) == [f'scene number {k}' for k in range(4)]
  assert all(len(words.ids(text)) == 3 for text in texts)  # a token a word
  (full,) = batches(given | dict(crop='full', hint='ade20k'), 1)
  assert full['image'].shape == full['hint'].shape == (4, 8, 16, 3)


def test_batches_depend_on_seed_step_and_host_alone(tmp_path):
  written(tmp_path)
  whole = batches(options(tmp_path, caption_dropout=0.5), 4)
  later = batches(options(tmp_path, caption_dropout=0.5, threads=2), 2, start=2)
  halves = [batches(options(tmp_path, caption_dropout=0.5), 4, host=h, hosts=2) for h in (0, 1)]
  for k in range(4):
    for key, value in whole[k].items():
      joined = np.concatenate([halves[0][k][key], halves[1][k][key]])
      np.testing.assert_array_equal(value, joined)
      if k >= 2:
        np.testing.assert_array_equal(value, later[k - 2][key])
  crops = {batch['image'][list(batch['id']).index(whole[0]['id'][0])].tobytes() for batch in whole}
  assert len(crops) > 1
  empty = [row[1] == row[-1] for batch in whole for row in batch['tokens']]
  assert 0 < sum(empty) < len(empty)


def test_drawn_scenes_have_captions_of_their_labels_and_their_weather():
  given = options(batch=2, size=32, height=32, count=1, domains=('clear', 'fog'), crop='full')
  (batch,) = batches(given, 1, split='validation')
  stream = opening.open_dataset(given).split('validation')
  caption = captions.sentence(stream.scenes[0].labels)
  wanted = {'1000000': caption, '1000000fog': f'{caption}, in fog'}
  np.testing.assert_array_equal(batch['tokens'], stream.words([wanted[i] for i in batch['id']]))
  np.testing.assert_array_equal(batch['hint'][0], batch['hint'][1])
  assert np.abs(batch['image'][0] - batch['image'][1]).max() > 0.1


def test_a_folder_laid_out_as_cityscapes(tmp_path):
  written(tmp_path)
  for kind, to in (('target', 'leftImg8bit'), ('seg', 'gtFine')):
    (tmp_path / kind).rename(tmp_path / to)
  given = options() | dict(root=str(tmp_path))
  (batch,) = batches(given, 1)
  assert {*batch['id']} == {f'{k}_leftImg8bit.png' for k in range(4)}
  with pytest.raises(UserError, match='no folder .*valid\n  known: train'):
    batches(given, 1, split='valid')
  (tmp_path / 'gtFine/train/aachen/2_gtFine_labelIds.png').unlink()
  with pytest.raises(UserError, match='no file .*2_gtFine_labelIds.png, the labels of'):
    batches(given, 1)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda root, lines: lines.insert(1, '{"image": \n'), 'line 2 cannot be read as JSON'),
    (lambda root, lines: lines[1].pop('text'), 'line 2 has image, conditioning_image\n.*text'),
    (lambda root, lines: lines[1].update(text=3), 'line 2 has'),
    (lambda root, lines: lines[2].update(image='a.png'), 'line 3: no file .*a.png\n.*root'),
    (lambda root, lines: lines[3].update(conditioning_image='b.png'), 'line 4: no file .*b.png'),
    (lambda root, lines: lines.clear(), 'lists no scene'),
    (lambda root, lines: label(root).write_bytes(b'x'), 'line 1: .*0_gtFine_labelIds.png'),
    (lambda root, lines: paint(label(root), 40), 'line 1: .*id 40 is no class'),
    (lambda root, lines: paint(label(root), 1, (4, 4)), 'line 1: .* is 32x16, its labels 4x4'),
    (lambda root, lines: paint(label(root), 1, (16, 32, 3)), 'line 1: .*no picture of 8-bit label'),
  ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(tmp_path, change, message):
  lines = written(tmp_path)
  change(tmp_path, lines)
  write(tmp_path, lines)
  with pytest.raises(UserError, match=message):
    opening.open_dataset(options(tmp_path)).split('train')


def label(root):
  return root / 'seg/train/aachen/0_gtFine_labelIds.png'


def paint(path, value, shape=(16, 32)):
  Image.fromarray(np.full(shape, value, np.uint8)).save(path)


def test_scenes_of_different_shape_are_told(tmp_path):
  written(tmp_path)
  shape = (16, 16)
  paint(label(tmp_path), 1, shape)
  Image.fromarray(np.zeros((*shape, 3), np.uint8)).save(tmp_path / f'{FOLDER}/0_leftImg8bit.png')
  with pytest.raises(UserError, match='differ in size.*\n.*random_square'):
    batches(options(tmp_path, crop='full'), 1)
  assert batches(options(tmp_path), 1)
  with pytest.raises(UserError, match='4 scenes, fewer than a batch of 5'):
    batches(options(tmp_path, batch=5), 1)


def test_a_tokenizer_that_is_not_there_is_named_with_what_makes_one():
  with pytest.raises(
    UserError, match=r'config.data.tokenizer: no file nowhere/vocab.json\n.*export'
  ):
    opening.open_dataset(options(tokenizer='nowhere')).split('train')
