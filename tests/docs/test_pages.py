"""Every block of every page runs, or its arguments are ones that its command takes."""

import pathlib

import pytest

from tests.docs import pages

PAGES = ('README.md', 'CONTRIBUTING.md', *sorted(str(p) for p in pathlib.Path('docs').glob('*.md')))
ELSEWHERE = {
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
