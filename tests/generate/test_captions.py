import numpy as np
import pytest

from car_jax.datasets.street_scenes import scenes
from car_jax.generate import captions


def scene(*things):
  """An empty street, with (label id, rows, columns) painted on it."""
  labels = np.full((60, 120), captions.ROAD, np.uint8)
  labels[:30] = captions.BUILDING
  for label, rows, columns in things:
    labels[slice(*rows), slice(*columns)] = label
  return labels


@pytest.mark.parametrize(
  ('things', 'wanted'),
  [
    ([], 'a city street'),
    ([(24, (30, 34), (2, 4))], 'a city street with a person on the left'),
    (
      [(26, (30, 40), (90, 110)), (26, (30, 40), (82, 88)), (24, (30, 36), (60, 62))],
      'a city street with two cars on the right and a person in the middle',
    ),
    ([(26, (40, 44), (9 * k, 9 * k + 6)) for k in range(13)], 'many cars'),
    ([(32, (40, 50), (0, 20)), (32, (40, 50), (100, 120))], 'two motorcycles on both sides'),
    ([(24, (50, 51), (50, 51))], 'a city street'),  # one pixel of 7,200
  ],
)
def test_a_sentence_says_what_how_many_and_where(things, wanted):
  assert wanted in (text := captions.sentence(scene(*things)))
  assert len(text.split()) <= captions.WORDS


def test_sentences_of_scenes_have_the_form_of_published_captions():
  texts = {captions.sentence(scenes.render(3, k, height=64).labels) for k in range(3)}
  assert len(texts) == 3
  for text in texts:
    assert text == text.lower()
    assert not text.endswith('.')
    assert 3 <= len(text.split()) <= 18


def test_what_is_no_class_is_not_mentioned():
  assert captions.sentence(np.full((8, 8), 255, np.uint8)) == 'a city scene'
