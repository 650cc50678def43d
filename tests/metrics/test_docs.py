import pathlib
import re

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'metrics.md'


def test_the_example_of_the_page_runs(capsys):
  (example,) = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
  exec(compile(example, str(PAGE), 'exec'), {})
  assert capsys.readouterr().out.startswith('ged16[v,absent=1,fg] Interval(mean=')
