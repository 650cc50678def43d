"""CLIP's tokenizer: its folders, its words, where a word of a prompt is. Ids: tests/replay."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate import tokenizer

GOLDEN = pathlib.Path('tests/golden')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """vocab.json and merges.txt, as folders of old have them."""
  place = tmp_path_factory.mktemp('tokenizer')
  shutil.copy(GOLDEN / 'genval' / 'tokenizer_vocab.json', place / 'vocab.json')
  shutil.copy(GOLDEN / 'genval' / 'tokenizer_merges.txt', place / 'merges.txt')
  return place


@pytest.fixture(scope='module')
def read(folder):
  return tokenizer.read(folder)


def test_words():
  text = "It's Don't  a\tcafé №5 x12?! <|endoftext|>Ⅳ²"
  expected = ['it', "'s", 'don', "'t", 'a', 'café', '№', '5', 'x', '1', '2', '?!']
  assert tokenizer.words(text) == [*expected, tokenizer.END, 'ⅳ', '²']
  assert tokenizer.words('Cafe\u0301') == ['café']


def test_every_text_comes_back_from_its_pieces(read):
  signs, text = tokenizer.byte_signs(), 'grüße — 東京 🚗 nothing of it is known'
  assert len({*signs}) == 256
  for word in tokenizer.words(text):
    pieces = ''.join(read.tokens(word)).removesuffix(tokenizer.LAST)
    assert bytes(signs.index(sign) for sign in pieces).decode() == word


def test_both_layouts_are_one_tokenizer(read):
  joint = tokenizer.read(GOLDEN / 'diffusers' / 'pipeline' / 'tokenizer')
  assert not (GOLDEN / 'diffusers' / 'pipeline' / 'tokenizer' / 'vocab.json').exists()
  assert joint.vocabulary == read.vocabulary
  assert joint.ranks == read.ranks
  assert (joint.length, joint.padding) == (read.length, read.padding) == (77, read.end)


def test_rows_begin_end_and_are_filled(read):
  found = read(['', 'cars'])
  assert found.shape == (2, 77)
  assert list(found[0]) == [read.begin] + [read.end] * 76
  ids = [read.begin, *read.ids('cars'), read.end]
  assert list(found[1, : len(ids)]) == ids


def test_what_is_too_long_is_cut_and_said(read, capsys):
  found = read('street ' * 100)
  (token,) = read.ids('street')
  assert list(found[0]) == [read.begin] + [token] * 75 + [read.end]
  assert 'warning: a text of 100 tokens, 75 are read' in capsys.readouterr().err


def test_where_a_word_stands(read):
  text = 'A photo of an elephant'
  found, ids = read.position(text, 'elephant'), read(text)[0]
  assert list(ids[found]) == read.ids('elephant')
  assert not found[0]
  assert not read.position(text, 'zebra').any()
  assert not read.position(text, '').any()


def test_padding_and_length_are_those_of_the_folder(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'new')
  options = {'pad_token': {'content': '!'}, 'model_max_length': 5}
  (tmp_path / 'new' / 'tokenizer_config.json').write_text(json.dumps(options))
  read = tokenizer.read(tmp_path / 'new')
  assert list(read('a')[0]) == [read.begin, *read.ids('a'), read.end, 0, 0]
  np.testing.assert_array_equal(read('a').dtype, np.int32)


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('vocab.json', '{"a": 0}', r'without .<\|startoftext\|>.'),
    ('vocab.json', '[1]', 'cannot be read as JSON'),
    ('merges.txt', '#version: 0.2\na b\nc', r"merges.txt: \['c'\] is no pair"),
    ('merges.txt', None, 'no file .*merges.txt'),
    ('vocab.json', '{"<|startoftext|>": "x"}', 'something but numbers'),
  ],
)
def test_damaged_folders(folder, tmp_path, name, text, message):
  shutil.copytree(folder, tmp_path / 'new')
  path = tmp_path / 'new' / name
  path.unlink() if text is None else path.write_text(text)
  with pytest.raises(UserError, match=message):
    tokenizer.read(tmp_path / 'new')
