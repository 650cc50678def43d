"""The examples of the pages run."""

import doctest
import pathlib
import re

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
