"""Every block of every page runs, or its arguments are ones that its command takes."""

import json
import pathlib

import matplotlib
import matplotlib.pyplot as plt
import pytest

from tests.docs import pages

PAGES = ('README.md', 'CONTRIBUTING.md', *sorted(str(p) for p in pathlib.Path('docs').glob('*.md')))
ELSEWHERE = {
  'docs/clusters.md': 'tests/test_clusters.py',
  'docs/predict.md': 'tests/predict/test_docs.py',
  'docs/own_parts.md': 'tests/test_own_parts.py',
  'docs/predictions.md': 'tests/predictions/test_layouts.py',
}
"""Pages that a test with claims of its own runs."""


@pytest.mark.parametrize('page', [p for p in PAGES if p not in ELSEWHERE])
def test_a_page_works_to_the_letter(page, tmp_path):
  pages.play(pages.ROOT / page, tmp_path)


@pytest.mark.parametrize(('page', 'test'), ELSEWHERE.items())
def test_the_others_are_run_too(page, test):
  assert f"'{page}'" in pathlib.Path(test).read_text()


QUICK = ('readers', 'own_folder', 'predictions', 'extending')


@pytest.mark.parametrize(
  'path',
  [
    pytest.param(p, marks=() if p.stem in QUICK else pytest.mark.slow, id=p.stem)
    for p in sorted(pathlib.Path('docs/tutorials').glob('*.ipynb'))
  ],
)
def test_a_tutorial_runs_at_toy_size(path, tmp_path, monkeypatch):
  matplotlib.use('agg')
  monkeypatch.setattr('matplotlib.pyplot.show', lambda: plt.close('all'))
  pages.play(pages.ROOT / path, tmp_path)


def test_every_tutorial_is_kept_with_its_outputs():
  for path in pathlib.Path('docs/tutorials').glob('*.ipynb'):
    code = [c for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    kinds = {o['output_type'] for c in code for o in c['outputs']}
    assert 'stream' in kinds, path
    assert 'error' not in kinds, path
    assert any('image/png' in o.get('data', {}) for c in code for o in c['outputs']), path
