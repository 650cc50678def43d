"""The page in a real browser: its script runs, sorts and chooses, and nothing is too wide."""

import html
import re
import shutil
import subprocess

import pytest

from car_jax.reliability import page
from tests.reliability import fake_study

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
  *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
  '--hide-scrollbars',
)

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f'none of {", ".join(NAMES)} is installed')


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  study = fake_study.study()
  path = tmp_path_factory.mktemp('page') / 'study.html'
  path.write_text(page.page(study, fake_study.images(study)))
  return path


def browse(folder, address, *flags):
  command = [BROWSER, *FLAGS, f'--user-data-dir={folder / "profile"}', *flags, address]
  return subprocess.run(command, capture_output=True, timeout=120, check=True).stdout.decode()


def root(dom):
  found = re.search('<html[^>]*>', dom).group(0)
  return {k: html.unescape(v) for k, v in re.findall(r'data-(\w+)="([^"]*)"', found)}


def body_rows(dom, section):
  """[(first cell's text, hidden)] of the section's first table, as it stands in the document."""
  part = dom[dom.index(f'<section id="{section}"') :]
  body = part[part.index('<tbody>') : part.index('</tbody>')]
  rows = re.findall(r'<tr([^>]*)><th scope="row">(.*?)</th>', body)
  return [(re.sub('<[^>]*>', ' ', name).strip(), 'hidden' in extra) for extra, name in rows]


def test_sorting_and_choosing(written, tmp_path):
  dom = browse(tmp_path, f'{written.as_uri()}#check=1&sort=ece&calibrator=local', '--dump-dom')
  assert root(dom) == {'ready': '1', 'overflow': ''}
  study = fake_study.study()
  ranked = sorted(study['cells'], key=lambda c: float(f'{c["values"]["ece"]["value"]:.6g}'))
  plain = lambda c: '' if c['calibrator'] == 'none' else f' · {c["calibrator"]}'
  rows = body_rows(dom, 'scores')
  assert [r for r, _ in rows] == [f'{c["model"]} {c["set"]}{plain(c)}' for c in ranked]
  assert [hidden for _, hidden in rows] == [c['calibrator'] != 'local' for c in ranked]
  assert re.search(r'data-name="ece"[^>]* aria-sort="ascending"', dom)


def test_missing_values_sort_last_and_high_is_best_first(written, tmp_path):
  dom = browse(tmp_path, f'{written.as_uri()}#sort=unknown_auroc', '--dump-dom')
  rows = [r for r, _ in body_rows(dom, 'scores')]
  assert all(' IDD' in r for r in rows[:12])
  assert not any(' IDD' in r for r in rows[12:])
  assert rows[0] == 'SegFormer-B0 IDD · local'


def test_an_error_of_the_script_is_noted(tmp_path):
  text = page.page({'title': 'short'}, {})
  path = tmp_path / 'broken.html'
  path.write_text(text.replace('</main>', '</main><script>nothing.there</script>'))
  found = root(browse(tmp_path, path.as_uri(), '--dump-dom'))
  assert 'nothing is not defined' in found['errors']
  assert found['ready'] == '1'


def test_a_phone_sees_no_overflow(written, tmp_path):
  # A headless window has a least width; a frame does not.
  frame = tmp_path / 'frame.html'
  frame.write_text(
    f'<iframe src="{written.as_uri()}#check=1" style="width:375px;height:800px"></iframe><script>'
    'onload=function(){var d=frames[0].document.documentElement;'
    'document.documentElement.dataset.found=JSON.stringify(d.dataset)+d.scrollWidth}</script>'
  )
  dom = browse(tmp_path, frame.as_uri(), '--dump-dom', '--allow-file-access-from-files')
  assert root(dom)['found'] == '{"overflow":"","ready":"1"}375'


def test_a_picture_of_the_page(written, tmp_path):
  import cv2

  target = tmp_path / 'page.png'
  browse(tmp_path, written.as_uri(), f'--screenshot={target}', '--window-size=1400,1000')
  picture = cv2.imread(str(target))
  assert picture.shape == (1000, 1400, 3)
  assert picture.std() > 10
