"""CLIP's byte-pair tokenizer (arXiv 2103.00020), from the files of a diffusers folder.

Text is brought to Unicode's composed form and to lower case, and cut into words: letters, single
digits, runs of other signs, and English contractions. A word's UTF-8 bytes are merged pair by pair,
in the order of the list of merges; the last one of a word carries `</w>`.
"""

import collections
import functools
import itertools
import json
import pathlib
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import files
from car_jax.errors import UserError, reading

BEGIN, END, LAST = '<|startoftext|>', '<|endoftext|>', '</w>'
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
RUNS = re.compile('L+|N|O+')  # of the kinds of signs; S, white space, separates


@functools.cache
def byte_signs() -> str:
  """The sign that stands for each byte: itself where it is printable, others from U+0100 on."""
  plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = iter(range(256, 512))
  return ''.join(chr(b if b in plain else next(others)) for b in range(256))


def _kind(sign: str) -> str:
  major = unicodedata.category(sign)[0]
  return 'S' if sign.isspace() else major if major in 'LN' else 'O'


def words(text: str) -> list[str]:
  """What is between white space, further cut where letters, digits and other signs meet."""
  parts = []
  for part in re.split(f'({re.escape(BEGIN)}|{re.escape(END)})', text):
    if part in (BEGIN, END):
      parts.append(part)
      continue
    part = unicodedata.normalize('NFC', part).lower()
    kinds, i = ''.join(map(_kind, part)), 0
    while i < len(part):
      short = next((c for c in CONTRACTIONS if part.startswith(c, i)), '')
      run = RUNS.match(kinds, i)
      end = i + len(short) if short else run.end() if run else i + 1
      if short or run:
        parts.append(part[i:end])
      i = end
  return parts


def merged(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
  """The parts of a word with each such pair of neighbours made one, from the left."""
  joined: list[str] = []
  for part in parts:
    if joined and (joined[-1], part) == pair:
      joined[-1] += part
    else:
      joined.append(part)
  return joined


class Tokenizer:
  """Texts -> ids [B, length] int32: begin, the text's tokens, end, padding."""

  def __init__(
    self,
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    length: int = 77,
    padding: str = END,
  ):
    missing = [t for t in (BEGIN, END, padding) if t not in vocabulary]
    if missing:
      raise UserError(f'a vocabulary without {missing[0]!r} is not that of CLIP')
    self.vocabulary, self.length = vocabulary, length
    self.ranks = {tuple(pair): i for i, pair in enumerate(merges)}
    self.begin, self.end, self.padding = (vocabulary[t] for t in (BEGIN, END, padding))
    self._merged: dict[str, list[str]] = {}

  def ids(self, text: str) -> list[int]:
    """Of the text alone, however long."""
    return [self.vocabulary.get(token, self.end) for w in words(text) for token in self.tokens(w)]

  def tokens(self, word: str) -> list[str]:
    """The pieces of one word."""
    if word in (BEGIN, END):
      return [word]
    if word not in self._merged:
      self._merged[word] = self._merge(word)
    return self._merged[word]

  def _merge(self, word: str) -> list[str]:
    signs = byte_signs()
    parts = [signs[b] for b in word.encode()]
    parts[-1] += LAST
    while len(parts) > 1:
      pairs = list(itertools.pairwise(parts))
      best = min(pairs, key=lambda pair: self.ranks.get(pair, len(self.ranks)))
      if best not in self.ranks:
        break
      parts = merged(parts, best)
    return parts

  def __call__(self, texts: str | Sequence[str]) -> np.ndarray:
    """Of a text that is too long the end is cut off, as published; stderr says how much."""
    texts = [texts] if isinstance(texts, str) else texts
    tokens = np.full((len(texts), self.length), self.padding, np.int32)
    for row, text in zip(tokens, texts, strict=True):
      ids, room = self.ids(text), self.length - 2
      if len(ids) > room:
        what = f'{len(ids)} tokens, {room} are read: {text!r:.60}'
        print(f'warning: a text of {what}', file=sys.stderr, flush=True)
      ids = [self.begin, *ids[:room], self.end]
      row[: len(ids)] = ids
    return tokens

  def position(self, text: str, part: str) -> np.ndarray:
    """[length] bool: which tokens of `text` are those of `part`, words that it contains."""
    ids, wanted = self.ids(text)[: self.length - 2], self.ids(part)
    of_word = np.zeros(self.length, bool)
    for i in range(len(ids) - len(wanted) + 1):
      if wanted and ids[i : i + len(wanted)] == wanted:
        of_word[i + 1 : i + 1 + len(wanted)] = True
    return of_word


def learned(texts: Iterable[str], *, length: int = 77) -> Tokenizer:
  """A tokenizer to which each word of these texts is one token; any other text is in its bytes.

  The commonest pair of neighbours is merged until no word has two parts (arXiv 1508.07909).
  """
  counts = collections.Counter(w for text in texts for w in words(text))
  signs = [*byte_signs(), *(sign + LAST for sign in byte_signs())]
  split = {w: tuple(byte_signs()[b] for b in w.encode()) for w in sorted(counts)}
  split = {w: (*parts[:-1], parts[-1] + LAST) for w, parts in split.items()}
  merges: list[tuple[str, str]] = []
  while pairs := collections.Counter(
    {pair: 0 for parts in split.values() for pair in itertools.pairwise(parts)}
  ):
    for w, parts in split.items():
      for pair in itertools.pairwise(parts):
        pairs[pair] += counts[w]
    best = max(sorted(pairs), key=pairs.__getitem__)
    merges.append(best)
    split = {w: tuple(merged(parts, best)) for w, parts in split.items()}
  tokens = dict.fromkeys([*signs, *map(''.join, merges), BEGIN, END])
  return Tokenizer({token: i for i, token in enumerate(tokens)}, merges, length=length)


def save(folder: str | pathlib.Path, tokenizer: Tokenizer) -> None:
  """vocab.json, merges.txt and tokenizer_config.json, as `read` and transformers read them."""
  folder = pathlib.Path(folder)
  padding = next(t for t, i in tokenizer.vocabulary.items() if i == tokenizer.padding)
  config = dict(tokenizer_class='CLIPTokenizer', model_max_length=tokenizer.length)
  config |= dict(bos_token=BEGIN, eos_token=END, unk_token=END, pad_token=padding)
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in (('vocab', tokenizer.vocabulary), ('tokenizer_config', config)):
    (folder / f'{name}.json').write_text(json.dumps(content) + '\n')
  lines = ['#version: 0.2', *(' '.join(pair) for pair in tokenizer.ranks)]
  (folder / 'merges.txt').write_text('\n'.join(lines) + '\n')


def read(folder: str | pathlib.Path) -> Tokenizer:
  """vocab.json and merges.txt of a folder, or its tokenizer.json. Raises UserError by path."""
  folder = pathlib.Path(folder)
  apart, joint = folder / 'vocab.json', folder / 'tokenizer.json'
  if apart.exists() or not joint.exists():
    vocabulary = files.read_json(apart)
    lines = files.read_text(folder / 'merges.txt').split('\n')
    pairs = [line.split() for line in lines if line.strip() and not line.startswith('#version')]
    place: Any = folder / 'merges.txt'
  else:
    model = files.read_json(joint, keys=('model',))['model']
    with reading(joint, 'a tokenizer'):
      vocabulary = model['vocab']
      pairs = [p.split(' ') if isinstance(p, str) else p for p in model['merges']]
    place = joint
  if wrong := next((p for p in pairs if len(p) != 2), None):
    raise UserError(f'{place}: {wrong} is no pair to be merged')
  if any(type(i) is not int for i in vocabulary.values()):
    raise UserError(f'{apart if apart.exists() else joint}: a vocabulary of something but numbers')
  options = folder / 'tokenizer_config.json'
  config = files.read_json(options) if options.exists() else {}
  padding = config.get('pad_token', END)
  padding = padding.get('content', END) if isinstance(padding, dict) else padding or END
  length = config.get('model_max_length', 77)
  length = length if type(length) is int and 3 <= length <= 2**16 else 77
  return Tokenizer(vocabulary, [(a, b) for a, b in pairs], length=length, padding=padding)
