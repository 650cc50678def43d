"""Links lead somewhere and the navigation has every page, also where the site is not built."""

import pathlib
import re

import pytest

DOCS = pathlib.Path('docs')
PAGES = [*map(pathlib.Path, ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')), *DOCS.glob('*.md')]
LINK = re.compile(r'\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)')


def anchors(page):
  """Of its headings, as GitHub and MyST make them."""
  text = re.sub(r'```.*?```', '', page.read_text(), flags=re.DOTALL)
  titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=str)
def test_links_of_a_page_lead_somewhere(page):
  for target, anchor in LINK.findall(page.read_text()):
    file = page.parent / target if target else page
    assert file.exists(), target
    assert not anchor or anchor in anchors(file), f'{target}#{anchor}'


def test_the_navigation_has_every_page():
  listed = set()
  for tree in re.findall(r'```{toctree}\n(.*?)```', (DOCS / 'index.md').read_text(), re.DOTALL):
    listed |= {line for line in tree.splitlines() if line and not line.startswith(':')}
  pages = [p for p in DOCS.rglob('*') if p.suffix in ('.md', '.ipynb') and p.stem != 'index']
  assert listed == {str(p.relative_to(DOCS).with_suffix('')) for p in pages}
