"""Generation without weights: exact masks, the same images again, weather on any photographs."""

import numpy as np
import pytest
from PIL import Image

from car_jax.datasets.street_scenes import __main__ as street_scenes
from car_jax.datasets.street_scenes import pasted, photographs, scenes, weather
from car_jax.generate import __main__ as command
from car_jax.generate import boxes, sets
from tests.datasets.files import truncate
from tests.generate.test_records import content

SMALL = ('--height', '32', '--scenes', '5')


def generate(kind, out, *more):
  return command.main(['procedural', kind, '--out', str(out), *more])


@pytest.fixture(scope='module')
def street(tmp_path_factory):
  """Drawn scenes as files: what a user's photographs are here."""
  out = tmp_path_factory.mktemp('street') / 'files'
  assert street_scenes.main([str(out), '--height', '32', '--count', '4', '--part', 'test']) == 0
  return out


@pytest.mark.parametrize('kind', ['style', 'ood'])
def test_parts_and_the_whole_are_the_same_bytes(tmp_path, kind):
  some = ('--domains', 'rain,night') if kind == 'style' else ('--objects', 'deer,ball')
  assert generate(kind, tmp_path / 'a', *SMALL, *some, '--stop', '2') == 0
  assert generate(kind, tmp_path / 'b', *SMALL, *some, '--start', '1', '--stop', '2') == 0
  assert generate(kind, tmp_path / 'b', *SMALL, *some, '--stop', '2') == 0
  assert content(tmp_path / 'a') == content(tmp_path / 'b')
  assert generate(kind, tmp_path / 'c', *SMALL, *some, '--stop', '2', '--seed', '1') == 0
  names = lambda out: {i.files['image'].name for i in sets.read(out)}
  pixels = lambda out: {i.picture.read_bytes() for i in sets.read(out)}
  assert len(pixels(tmp_path / 'a')) == 4
  assert not pixels(tmp_path / 'a') & pixels(tmp_path / 'c')
  assert kind == 'ood' or names(tmp_path / 'a') != names(tmp_path / 'c')


def test_a_style_changes_the_image_and_nothing_of_its_labels(tmp_path):
  assert generate('style', tmp_path, *SMALL, '--stop', '1') == 0
  items = sets.read(tmp_path)
  assert [i.group for i in items] == ['fog', 'night', 'rain', 'snow']
  image, ids = (
    (lambda p: np.asarray(Image.open(p))),
    {i.files['labels'].read_bytes() for i in items},
  )
  assert len(ids) == len({i.files['original'].read_bytes() for i in items}) == 1
  dark = {i.group: image(i.picture).mean() - image(i.files['original']).mean() for i in items}
  assert dark['night'] < dark['rain'] < 0 < dark['snow']


def test_the_mask_of_a_pasted_object_is_the_very_pixels():
  rng = np.random.default_rng(0)
  scene = scenes.render(0, 1, height=128).image
  for name in pasted.OBJECTS:
    for _ in range(5):
      box = boxes.draw(rng, 128, 256, (32, 64))
      made, mask = pasted.pasted(scene, box, name, rng)
      changed = (made != scene).any(-1)
      assert not (changed & ~mask).any()
      assert changed.sum() > 0.9 * mask.sum()
      assert not (mask & (box.mask(128, 256) == 0)).any()
      assert 0.05 < mask.sum() / box.size**2 < 0.85


def test_the_distance_in_a_photograph_is_that_of_the_ground_at_the_foot():
  ids = np.full((40, 20), 7)
  ids[:18] = 23  # sky
  ids[10:30, 5:10] = 26  # a car whose foot is at row 30
  ids[10:, 15:] = 11  # a house that reaches the lower edge
  light = photographs.light(np.zeros((40, 20, 3), np.uint8), ids)
  view = photographs.camera(40, 20)
  np.testing.assert_allclose(light.depth[20:, 0], view.ground_depth(np.arange(20, 40.0)), rtol=1e-6)
  assert {*light.depth[10:30, 7]} == {light.depth[30, 0]}
  assert {*light.depth[10:, 17]} == {light.depth[39, 0]}
  assert (light.depth[:10] > 4 * photographs.FARTHEST / 2).all()
  assert (np.diff(light.depth[18:, 0]) <= 0).all()


def test_fog_in_a_photograph_takes_more_of_what_is_far():
  ids = np.full((64, 128), 7)
  ids[:27] = 23
  image = np.zeros((64, 128, 3), np.uint8)
  grey = photographs.weathered(image, ids, 'fog', 1.0, np.random.default_rng(0)).mean((1, 2))
  assert grey[20] > grey[35] > grey[50] > grey[63] > 0
  same = photographs.weathered(image, ids, 'fog', 0.0, np.random.default_rng(0))
  np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize('domain', ['fog', 'night', 'rain', 'snow'])
def test_weather_looks_alike_at_another_size(domain):
  ids = np.full((128, 256), 7)
  ids[:50], ids[40:80, 30:60] = 23, 26
  image = np.where(ids[..., None] == 26, 60, np.where(ids[..., None] == 23, 190, 110))
  image = np.broadcast_to(image, (128, 256, 3)).astype(np.uint8)
  rng = lambda: np.random.default_rng(4)
  effect = weather.EFFECTS[domain]
  small = effect(photographs.light(image, ids), 1.0, rng())[0]
  double = lambda x: x.repeat(2, 0).repeat(2, 1)
  large = effect(photographs.light(double(image), double(ids)), 1.0, rng())[0]
  means = large.reshape(128, 2, 256, 2, 3).mean((1, 3))
  blocks = lambda x: x.reshape(8, 16, 16, 16, 3).mean((1, 3))
  assert np.abs(blocks(means) - blocks(small)).mean() < 6


def test_photographs_of_the_users(street, tmp_path):
  for kind in ('style', 'ood'):
    assert generate(kind, tmp_path, '--source', str(street), '--stop', '2') == 0
  for item in sets.read(tmp_path):
    labels = street / 'gtFine' / 'val' / f'{item.scene}_gtFine_labelIds.png'
    ours, theirs = (np.asarray(Image.open(p)) for p in (item.files['labels'], labels))
    np.testing.assert_array_equal(ours, theirs)
    original = np.asarray(Image.open(street / 'leftImg8bit/val' / f'{item.scene}_leftImg8bit.png'))
    image = np.asarray(Image.open(item.picture))
    if item.kind == 'ood':
      mask = np.asarray(Image.open(item.files['mask'])) > 0
      np.testing.assert_array_equal(image[~mask], original[~mask])
    else:
      assert (image != original).mean() > 0.5


def test_a_damaged_photograph_is_named_and_what_is_made_stays(street, tmp_path, capsys):
  import shutil

  copy = tmp_path / 'copy'
  shutil.copytree(street, copy)
  for path in copy.rglob('*_leftImg8bit.png'):
    truncate(path)
  assert generate('style', tmp_path / 'out', '--source', str(copy), '--stop', '2') == 2
  assert '_leftImg8bit.png cannot be read as a picture' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['style', '--domains', 'fgo'], "no domain 'fgo'\n  did you mean: fog"),
    (['ood', '--objects', 'lion'], "no object 'lion'"),
    (['style', '--strength', '2'], '--strength cannot be'),
    (['style', '--height', '33'], '--height cannot be 33'),
    (['ood', '--stop', '2', '--start', '2'], '--stop 2 must be more than --start 2'),
    (['ood', '--source', 'nowhere'], 'nowhere'),
    (['ood', '--strenght', '1'], 'belongs to no option'),
    (['styl'], "procedural makes no 'styl'\n  did you mean: style"),
  ],
)
def test_mistakes_make_nothing(tmp_path, capsys, arguments, message):
  more = ['--out', str(tmp_path / 'out')] if len(arguments) > 1 else []
  assert command.main(['procedural', *arguments, *more]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()
