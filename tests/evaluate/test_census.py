"""Labels that make scores mean little are told: classes that never occur, much that is ignored."""

import re

import numpy as np
import pytest

from car_jax.data import labels as labels_of
from car_jax.evaluate import census

SCENES = tuple(str(n) for n in labels_of.CLASS_NAMES[: labels_of.SCORED])
USUAL = np.full(19, 50.0)


@pytest.mark.parametrize(
  ('counts', 'void', 'names', 'message'),
  [
    ([75, 25], 0, ('background', 'object'), ''),
    (USUAL, 100, SCENES, ''),  # a tenth is ignored, as in Cityscapes
    ([75, 0], 25, ('background', 'object'), 'object never occurs; 25 % of the pixels have'),
    ([75, 0], 25, ('background', 'object'), 'masks of 0 and 255\\?'),
    ([100, 0], 0, ('background', 'object'), 'object never occurs$'),
    (USUAL * (np.arange(19) < 6), 400, SCENES, 'and 8 more never occur.*train ids that were read'),
    (USUAL * (np.arange(19) != 7), 0, SCENES, '^traffic sign never occurs$'),
    (USUAL, 950, SCENES, '^50 % of the pixels have the ignored label 255$'),
  ],
)
def test_labels_that_make_scores_mean_little_are_told(counts, void, names, message):
  counts = np.asarray(counts, float)
  seen = census.Census(counts, void, counts.sum() + void)
  found = census.remark(seen, names, ignore=255)
  assert re.search(message, found) if message else not found
  if len(names) == 19 and 'traffic' in message:
    assert not census.remark(seen, names, absent=(7,), ignore=255)


def test_one_line_for_sets_with_the_same_labels():
  found = census.lines({'fog': 'a never occurs', 'sun': '', 'rain': 'a never occurs'})
  assert found == ['labels of fog, rain: a never occurs.']
