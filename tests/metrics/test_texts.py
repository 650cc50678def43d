"""Words of the scores on pages."""

import pathlib

from car_jax.reliability.view import Metric


def test_a_paper_stands_behind_what_a_score_means():
  assert Metric.of('augrc').about.endswith(' (arXiv:2407.01032)')
  assert '(arXiv' not in Metric.of('miou').about
  lines = pathlib.Path('docs/options.md').read_text().splitlines()
  (row,) = (line for line in lines if line.startswith('| `augrc` |'))
  assert row.endswith('| arXiv:2407.01032 |')
