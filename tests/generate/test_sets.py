"""Sets that others generated, from their files alone; the page on which any set is looked at."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from car_jax.errors import UserError
from car_jax.generate import __main__ as command
from car_jax.generate import look, sets
from tests.generate import released, test_records


def test_the_released_layout_is_read_without_records(tmp_path):
  items = sets.read(released.objects(released.styles(tmp_path)))
  assert [(i.id, i.group, i.status) for i in items] == [
    ('fog/0_frankfurt_000001_000019', 'fog', 'accepted'),
    ('fog/11_frankfurt_000001_000019', 'fog', 'accepted'),
    ('heavy rain/0_frankfurt_000001_000019', 'heavy rain', 'accepted'),
    ('heavy rain/11_frankfurt_000001_000019', 'heavy rain', 'accepted'),
    ('polar bear/0', 'polar bear', 'accepted'),
    ('polar bear/1', 'polar bear', 'rejected'),
    ('polar bear/2', 'polar bear', 'accepted'),
  ]
  assert items[0].scene == 'frankfurt/frankfurt_000001_000019'
  assert items[5].reason == 'no reason given'
  assert items[4].picture == tmp_path / 'refined/polar bear/0.png'


def test_images_of_which_nothing_is_refined_are_taken_as_they_are(tmp_path):
  items = sets.read(released.objects(tmp_path, refined=False))
  assert items[0].picture == tmp_path / 'with_positions/polar bear/0.png'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda r: (r / 'masks/polar bear/1_mask.txt').unlink(), ''),
    (lambda r: next(r.rglob('fog_0*labelIds.png')).unlink(), 'fog_0.*labelIds.png: missing'),
    (lambda r: next(r.rglob('0_gt.png')).unlink(), '0_gt.png: missing'),
    (lambda r: (r / 'with_positions/polar bear/0.png').unlink(), r'0\.png: missing'),
    (lambda r: (r / 'refined/polar bear/0.png').unlink(), 'refined/polar bear/0.png: missing'),
    (lambda r: (r / 'masks/polar bear/0_mask.txt').write_text('x'), '0_mask.txt: says why'),
    (lambda r: (r / 'masks').rename(r / 'mask'), 'masks: missing'),
    (lambda r: (r / 'fog/leftImg8bit/val/a.png').touch(), 'a.png: expected val/CITY/fog_N_NAME'),
    (lambda r: (r / 'fog').rename(r / 'mist'), 'expected val/CITY/mist_N_NAME'),
  ],
)
def test_what_is_missing_is_named(tmp_path, change, message):
  root = released.objects(released.styles(tmp_path))
  change(root)
  if message:
    with pytest.raises(UserError, match=message):
      sets.read(root)
  else:
    assert sets.read(root)[5].reason == 'no file of a mask'


def test_a_folder_without_a_set_is_told(tmp_path, capsys):
  assert command.main(['look', str(tmp_path)]) == 2
  assert 'holds no generated set' in capsys.readouterr().err
  assert command.main(['look', str(tmp_path / 'x')]) == 2
  assert command.main(['loook']) == 2
  assert 'did you mean: look' in capsys.readouterr().err


def unescaped(text):
  return html.unescape(re.sub('<[^>]*>', ' ', text))


def test_the_page_shows_each_image_and_says_what_was_rejected(tmp_path, capsys):
  root = released.objects(released.styles(tmp_path / '<i>set'))
  (root / sets.BY_EYE).write_text('fog/11_frankfurt_000001_000019 # <b>two moons\n')
  (root / 'masks/polar bear/1_mask.txt').write_text('<script>alert(1)</script>')
  assert command.main(['look', str(root)]) == 0
  assert 'polar bear: 2 of 3 accepted, 1 rejected' in capsys.readouterr().out
  page = (root / look.PAGE).read_text()
  assert '<script>alert' not in page
  assert '<b>two moons' not in page
  cards = re.findall(r'<div class="card[ "].*?</div></div>', page, re.S)
  assert len(cards) == 7
  assert ['two moons' in unescaped(c) for c in cards] == [False, True] + [False] * 5
  assert 'alert(1)' in unescaped(cards[5])
  strike = re.findall('data-strike="([^"]*)"', page)
  assert len(strike) == 6
  assert {*strike} < {i.id for i in sets.read(root)}
  images = re.findall('src="data:image/[a-z]+;base64,([^"]*)"', cards[4])
  mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[2]))).convert('RGB'))
  assert mask.shape == (8, 16, 3)
  assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_part_of_the_indices_is_shown(tmp_path, capsys):
  test_records.make(tmp_path, 'style', ['fog'], range(6))
  assert command.main(['look', str(tmp_path), '--start', '2', '--stop', '4']) == 0
  assert 'shown: 2 of 6; --start 4 shows the next' in capsys.readouterr().out
  page = (tmp_path / look.PAGE).read_text()
  assert [k for k in range(6) if f'fog/{k}_bonn' in page] == [2, 3]
  assert command.main(['look', str(tmp_path), '--start', '9', '--stop', '12']) == 2
  assert 'its indices go up to 5' in capsys.readouterr().err


def test_a_damaged_picture_is_named_and_no_page_is_left(tmp_path, capsys):
  root = released.styles(tmp_path)
  path = next(root.rglob('fog_0*_leftImg8bit.png'))
  path.write_bytes(path.read_bytes()[:40])
  assert command.main(['look', str(root)]) == 2
  assert str(path) in capsys.readouterr().err
  assert not (root / look.PAGE).exists()
