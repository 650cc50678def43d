"""The page in a real browser: its script runs, sorts and chooses, and nothing is too wide."""

import html
import json
import re
import shutil
import subprocess

import pytest

from car_jax.report import study as page
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
  # by what is shown; equal numbers stay in the study's order
  ranked = sorted(study['cells'], key=lambda c: float(f'{100 * c["values"]["ece"]["value"]:.1f}'))
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


def test_a_name_alone_and_the_values_of_a_point(written, tmp_path):
  path = tmp_path / 'used.html'
  path.write_text(written.read_text().replace('</body>', f'<script>{USE}</script></body>'))
  found = json.loads(root(browse(tmp_path, path.as_uri(), '--dump-dom'))['found'])
  assert found['alone'] == ['SETR-PUP']
  assert found['pressed'] == 'SETR-PUP alone'
  again = fake_study.study()['cells']
  values = next(
    c['values'] for c in again
    if (c['model'], c['set'], c['calibrator']) == ('SETR-PUP', 'fog 1.0', 'none')
  )  # fmt: skip
  name, label, *numbers = found['tip'].split('\n')
  assert name == 'SETR-PUP'
  assert label in ('label: fog 1.0', 'label: night 1.0')  # they have the same values
  assert [float(n.rpartition(': ')[2]) for n in numbers] == pytest.approx(
    [100 * values[m]['value'] for m in ('miou', 'ece')], rel=1e-3
  )
  assert found['saved'].startswith('<svg xmlns="http://www.w3.org/2000/svg"')
  assert '--s0:' in found['saved']


# Chooses a model in the first figure, points at its last marker, and saves the figure.
USE = """
var svg=document.querySelector('#accuracy .fig'),keys=svg.querySelectorAll('.k'),out={};
keys[1].dispatchEvent(new Event('click'));
out.pressed=svg.querySelector('[aria-pressed=true]').getAttribute('aria-label');
out.alone=Array.from(svg.querySelectorAll('.s:not(.dim)>title')).map(t=>t.textContent);
var last=Array.from(svg.querySelectorAll('.s')[1].querySelectorAll('.m')).pop().getAttribute('d');
var at=last.slice(last.lastIndexOf('M')+1).split(/[ a-z-]/).map(Number);
var box=svg.getBoundingClientRect(),scale=box.width/svg.viewBox.baseVal.width;
svg.dispatchEvent(new PointerEvent('pointermove',
  {clientX:box.left+at[0]*scale,clientY:box.top+at[1]*scale}));
out.tip=document.querySelector('.tip').textContent;
window.Blob=function(parts){out.saved=parts[0];return new File(parts,'x');};
HTMLAnchorElement.prototype.click=function(){};
Array.from(svg.parentNode.querySelectorAll('button')).pop().click();
document.documentElement.dataset.found=JSON.stringify(out);
"""


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
