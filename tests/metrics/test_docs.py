"""The examples of the pages run."""

import doctest
import pathlib
import re

from car_jax.reliability import legend

DOCS = pathlib.Path(__file__).parents[2] / 'docs'


def blocks(page):
  return re.findall(r'```python\n(.*?)```', (DOCS / page).read_text(), re.DOTALL)


def test_the_example_of_the_page_runs(capsys):
  (example,) = blocks('metrics.md')
  exec(compile(example, 'metrics.md', 'exec'), {})
  assert capsys.readouterr().out.startswith('ged16[v,absent=1,fg] Interval(mean=')


def test_a_notebook_prints_what_its_page_says():
  page = doctest.DocTestParser().get_doctest(
    ''.join(blocks('notebook.md')), {}, 'notebook.md', None, 0
  )
  result = doctest.DocTestRunner().run(page)
  assert result.failed == 0
  assert result.attempted > 20


def test_a_paper_stands_behind_what_a_score_means():
  assert legend.of_score('augrc').about.endswith(' (arXiv:2407.01032)')
  assert '(arXiv' not in legend.of_score('miou').about
  row = next(
    line
    for line in (DOCS / 'options.md').read_text().splitlines()
    if line.startswith('| `augrc` |')
  )
  assert row.endswith('| arXiv:2407.01032 |')
