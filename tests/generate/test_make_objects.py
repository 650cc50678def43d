"""car-jax generate ood: the same files however they are made; backgrounds stay."""

import json

import numpy as np
import pytest
from PIL import Image

from car_jax.data import labels
from car_jax.errors import UserError
from car_jax.generate import boxes, make_objects, options, records, tiny
from car_jax.generate.captioned import Scene
from car_jax.generate.masks import Mask
from car_jax.generate.unet import UNet
from tests.generate import sets
from tests.generate.sets import content, weights  # noqa: F401

loaded_once = sets.one_program(make_objects.Inpainter)
SMALL = ('--config.scenes.height=64', '--config.size=64')


def run(out, weights, *arguments):  # noqa: F811
  return sets.run('ood', out, weights, *SMALL, *arguments)


@pytest.fixture(scope='module')
def whole(weights, tmp_path_factory):  # noqa: F811
  """Images 0 and 1 of both objects; the mask of one is rejected."""
  out = tmp_path_factory.mktemp('whole')
  with pytest.MonkeyPatch.context() as patch:
    patched(patch)
    assert run(out, weights, '--stop', '2') == 0
  return out


def patched(patch):
  """Masks of random networks' pictures: the middle of the box, none for the first zebra."""
  count = {}

  def middle(scene, edited, box, name, **options):
    pixels = np.zeros(scene.shape[:2], bool)
    box.inside(pixels)[8:20, 8:20] = True
    count[name] = count.get(name, 0) + 1
    return Mask(None, 0.5, 'no zebra') if name == 'zebra' and box.column % 2 else Mask(pixels, 3.0)

  patch.setattr(make_objects.promptable, 'method', lambda options: middle)


def test_in_parts_the_bytes_are_the_same(whole, weights, tmp_path, monkeypatch):  # noqa: F811
  patched(monkeypatch)
  assert run(tmp_path, weights, '--start', '1', '--stop', '2') == 0
  assert run(tmp_path, weights, '--stop', '2', "--config.objects=('zebra',)") == 0
  assert run(tmp_path, weights, '--stop', '2') == 0
  assert content(tmp_path) == content(whole)


def rows_of(out):
  return [json.loads(line) for line in (out / 'index.jsonl').read_text().splitlines()]


def test_the_background_is_the_scene_bit_for_bit(whole):
  read = lambda name: np.asarray(Image.open(whole / name))
  for row in rows_of(whole):
    image, ids = sets.scene(row['scene'], 64)
    made = {what: read(name) for what, name in row['files'].items() if name.endswith('.png')}
    box = boxes.Box(*(row['box'][k] for k in ('row', 'column', 'size')), 0)
    outside = box.mask(*ids.shape) == 0
    np.testing.assert_array_equal(made['labels'], ids)
    for what in ('image', 'refined'):
      np.testing.assert_array_equal(made[what][outside], image[outside])
      assert (box.inside(made[what]) != box.inside(image)).mean() > 0.3
    if row['status'] == records.ACCEPTED:
      mask = made['mask'] == 255
      assert mask.sum() == row['mask_area'] == 144
      np.testing.assert_array_equal(made['ood'], np.where(mask, 255, ids))
    else:
      assert row['reason'] == 'no zebra'
      assert 'ood' not in made
  assert {row['prompts']['prompt'] for row in rows_of(whole)} == {
    'A photo of an arcade machine',
    'A photo of a zebra',
  }


def test_acceptance_is_printed_for_each_object(whole, weights, monkeypatch, capsys):  # noqa: F811
  patched(monkeypatch)
  assert run(whole, weights, '--stop', '2') == 0  # nothing is left to make
  lines = capsys.readouterr().out.splitlines()
  rejected = sum(row['status'] != 'accepted' for row in rows_of(whole))
  assert lines[0] == 'arcade machine: 2 of 2 accepted'
  assert lines[1].startswith(f'zebra: {2 - rejected} of 2 accepted')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (["--config.objects=('zebra,lion',)"], "config.objects holds 'zebra,lion'"),
    (["--config.objects=('zebra','zebra')"], "names 'zebra' twice"),
    (['--config.boxes=(0.5,0.25)'], 'the least side is the first'),
    (['--config.boxes=(0.5,0.6)'], 'config.boxes'),
    (['--config.refine.area=full', '--config.scenes.height=66'], 'multiples of 4'),
    (['--config.refine.strength=0.01'], 'config.refine.steps: 6 steps at strength 0.01 leave none'),
    (['--config.masks.method=sam'], 'config.masks.method'),
    (['--config.masks.prior=True', '--config.masks.method=sam3'], 'of the method difference alone'),
  ],
)
def test_mistakes_are_told_before_any_weight(arguments, message, weights, tmp_path, capsys):  # noqa: F811
  out = tmp_path / 'out'
  sets.check_refused(run(out, weights, *arguments), out, message, capsys)


def test_a_model_for_text_to_image_is_refused(weights, tmp_path, capsys):  # noqa: F811
  assert run(tmp_path / 'out', weights, f'--config.weights={weights / "sd"}') == 2
  assert 'ood takes one for inpainting, 9 channels' in capsys.readouterr().err


# Parts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [256, 301, 512])
def test_windows_lie_in_the_scene_around_their_box(size):
  rng = np.random.default_rng(size)
  for _ in range(50):
    box = boxes.draw(rng, 1024, 2048, (size, size))
    rows, columns = make_objects.box_window(box, 1024, 2048, 64)
    side = rows.stop - rows.start
    assert side == columns.stop - columns.start == -(-2 * size // 64) * 64
    assert 0 <= rows.start <= box.row <= box.row + size <= rows.stop <= 1024
    assert 0 <= columns.start <= box.column <= box.column + size <= columns.stop <= 2048


def planned(height=1024, width=2048, size=512):
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  box = boxes.draw(rng, height, width, (size, size))
  return make_objects.Plan('cat', Scene('a/b', image, image[..., 0]), box, {})


def test_a_composite_fades_into_the_scene():
  plan = planned()
  window = make_objects.box_window(plan.box, 1024, 2048, 64)
  picture = np.full((window[0].stop - window[0].start,) * 2 + (3,), 200, np.uint8)
  made = make_objects.composite(plan, window, picture)
  outside = plan.box.mask(1024, 2048) == 0
  np.testing.assert_array_equal(made[outside], plan.scene.image[outside])
  before, after = (plan.box.inside(x).astype(float) for x in (plan.scene.image, made))
  assert (after[32:-32, 32:-32] == 200).all()  # 512 / 16 pixels fade
  share = ((after - before) / (200 - before + 1e-9))[16, 32:-32][
    np.abs(before[16, 32:-32] - 200) > 60
  ]
  np.testing.assert_allclose(share, 16.5 / 32, atol=0.02)


def test_pasted_crops_are_cut_hard():
  plan = planned(size=300)
  made = make_objects.pasted(plan, np.full((512, 512, 3), 0.2, np.float32))
  outside = plan.box.mask(1024, 2048) == 0
  np.testing.assert_array_equal(made[outside], plan.scene.image[outside])
  assert (plan.box.inside(made) == round(127.5 * 1.2)).all()


def test_articles_and_prompts():
  of = lambda name, **kw: make_objects.Inpainter.prompts(
    Asked(options.ObjectOptions(refine=options.RefineOptions(**kw.pop('refine', {})), **kw)), name
  )
  assert of('zebra') == ('A photo of a zebra',) * 2
  assert of('elephant') == ('A photo of an elephant',) * 2
  assert of('zebra', always_an=True)[0] == 'A photo of an zebra'
  assert of('zebra', refine=dict(bare_prompt=True)) == ('A photo of a zebra', 'zebra')


class Asked:
  def __init__(self, made):
    self.made = made


DRAWN: list[Scene] = []


def inpainter(**kw):
  made = options.ObjectOptions(refine=options.RefineOptions(), masks=options.MaskOptions(), **kw)
  scenes = DRAWN or [Scene(*sets.drawn(64, k)) for k in range(3)]
  DRAWN[:] = scenes
  pipeline = type('Opened', (), dict(networks=(UNet(**tiny.SIZES), tiny.AUTOENCODER, None)))
  return make_objects.Inpainter(made, scenes, pipeline, None, None, None)


def test_boxes_on_streets():
  on_road = inpainter(road_only=True)
  other = 0
  for index in range(30):
    box, scene = (plan := on_road.plan(index, 'cat')).box, plan.scene
    middle = scene.labels[box.row + box.size // 2, box.column + box.size // 2]
    assert labels.CLASS_NAMES[labels.train_ids(middle)] in ('road', 'sidewalk')
    box, scene = (plan := inpainter().plan(index, 'cat')).box, plan.scene
    middle = scene.labels[box.row + box.size // 2, box.column + box.size // 2]
    other += labels.CLASS_NAMES[labels.train_ids(middle)] not in ('road', 'sidewalk')
  assert other


def test_scenes_without_streets_are_told():
  made = inpainter(road_only=True)
  nowhere = [Scene('a/b', np.zeros((64, 128, 3), np.uint8), np.full((64, 128), 23, np.uint8))]
  object.__setattr__(made, 'scenes', nowhere)
  with pytest.raises(UserError, match='no scene has a street'):
    made.plan(0, 'cat')


def test_attention_in_a_box_is_its_share_of_the_most():
  seen = np.zeros((12, 12), np.float32)
  seen[5, 6], seen[0, 0] = 2.0, 9.0
  prior = make_objects.in_box(seen, boxes.Box(2, 2, 8, 12))
  assert prior.shape == (8, 8)
  assert prior.max() == prior[3, 4] == 1
  assert (make_objects.in_box(np.zeros((4, 4), np.float32), boxes.Box(2, 2, 8, 12)) == 1).all()


@pytest.mark.slow
def test_the_whole_image_refined_and_masks_by_attention(loaded_once, weights, tmp_path):  # noqa: F811
  """As published every pixel changes then; with a prior the first pass gives attention too."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(make_objects.Inpainter, 'loaded', loaded_once)
    changed = ('--config.refine.area=full', '--config.masks.prior=True')
    assert run(tmp_path, weights, '--stop', '1', "--config.objects=('zebra',)", *changed) == 0
  (row,) = rows_of(tmp_path)
  read = lambda what: np.asarray(Image.open(tmp_path / row['files'][what]), int)
  image, _ = sets.scene(row['scene'], 64)
  outside = boxes.Box(*(row['box'][k] for k in ('row', 'column', 'size')), 0).mask(64, 128) == 0
  assert (read('image') == image)[outside].all()
  assert (read('refined') != image)[outside].mean() > 0.5
