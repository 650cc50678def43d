"""car-jax generate style: the same files however they are made, and clear refusals."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from car_jax import progress
from car_jax.datasets.street_scenes import procedural
from car_jax.errors import UserError
from car_jax.generate import (
  captions,
  command,
  make_style,
  options,
  programs,
  records,
  style,
  tiny,
)
from car_jax.generate.unet import UNet
from car_jax.interrupt import Interrupt
from tests.generate import sets
from tests.generate.sets import content, weights  # noqa: F401

loaded_once = sets.one_program(make_style.Stylist)
TWO = '--config.domains.fog=thick fog'


def run(out, weights, *arguments):  # noqa: F811
  return sets.run('style', out, weights, *arguments)


@pytest.fixture(scope='module')
def whole(weights, tmp_path_factory):  # noqa: F811
  """Images 0 to 2 of all four domains."""
  out = tmp_path_factory.mktemp('whole')
  assert run(out, weights, '--stop', '3', TWO) == 0
  return out


def test_in_parts_and_resumed_the_bytes_are_the_same(whole, weights, tmp_path):  # noqa: F811
  assert run(tmp_path, weights, '--start', '2', '--stop', '3', TWO) == 0
  assert run(tmp_path, weights, '--stop', '1', TWO) == 0
  (tmp_path / records.record_path(tmp_path, 'style', 'rain', 0)).unlink()  # as when killed
  assert run(tmp_path, weights, '--stop', '3', TWO) == 0
  assert content(tmp_path) == content(whole)


def test_what_is_in_the_files(whole):
  rows = [json.loads(line) for line in (whole / 'index.jsonl').read_text().splitlines()]
  assert len(rows) == 3 * 4
  read = lambda name: np.asarray(Image.open(whole / name))
  for row in rows:
    image, ids = sets.scene(row['scene'], 32)
    np.testing.assert_array_equal(read(row['files']['labels']), ids)
    np.testing.assert_array_equal(read(row['files']['original']), image)
    assert read(row['files']['image']).std() > 1
    text = 'thick fog' if row['domain'] == 'fog' else row['domain']
    assert row['prompts']['prompt'] == f'{captions.sentence(ids)}, in {text}'
  by_index = {(r['index'], r['scene']) for r in rows}
  assert len(by_index) == 3  # all domains of an index have one scene
  pictures = [read(r['files']['image']).tobytes() for r in rows]
  assert len({*pictures}) == len(rows)


def test_stopped_it_says_so_and_goes_on(whole, weights, tmp_path, monkeypatch, capsys):  # noqa: F811
  with monkeypatch.context() as patch:
    patch.setattr(progress, 'line', lambda n: lambda k: os.kill(os.getpid(), signal.SIGINT))
    assert run(tmp_path, weights, '--stop', '3', TWO) == 130
  assert 'the same command goes on' in capsys.readouterr().out
  assert len((tmp_path / 'index.jsonl').read_text().splitlines()) == 1
  assert run(tmp_path, weights, '--stop', '3', TWO) == 0
  assert content(tmp_path) == content(whole)


def test_a_full_disk_is_said_and_goes_on(whole, weights, tmp_path, monkeypatch, capsys):  # noqa: F811
  write, left = records.write, [4]

  def full(path, data):
    if not left[0]:
      raise OSError(errno.ENOSPC, 'No space left on device', str(path))
    left[0] -= 1
    write(path, data)

  with monkeypatch.context() as patch:
    patch.setattr(records, 'write', full)
    assert run(tmp_path, weights, '--stop', '3', TWO) == 2
  assert 'No space left on device' in capsys.readouterr().err
  assert run(tmp_path, weights, '--stop', '3', TWO) == 0
  assert content(tmp_path) == content(whole)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--start', '2', '--stop', '2'], '--start 2 --stop 2: no images of 0 to 3\n.*0 <= start < st'),
    (['--start', '3', '--stop', '5'], 'expected 0 <= start < stop <= 4'),
    (['--start', '-1'], '--start -1'),
    (['--config.step=3'], "unknown config key 'step'\n.*steps"),
    (['--config.guidance=x'], 'config.guidance'),
    (['--config.size=33'], 'config.size is 33\n.*multiples of 4: 32 or 36'),
    (['--config.weights=nowhere'], 'config.weights: no file or folder nowhere'),
    (['--config.weights='], 'config.weights is empty'),
    (['--config.genval_steps=True', '--config.steps=9'], 'config.steps: 9 steps by GenVal'),
    (['--config.scenes.root=nowhere'], 'no folder nowhere/leftImg8bit/val'),
    (['--config.scenes.height=33'], 'it is an even number'),
    (['--config.domains.a/b=x'], 'cannot be the name of a folder'),
    (['--config.domains.fog='], 'config.domains.fog is'),
  ],
)
def test_mistakes_are_told_before_any_weight(arguments, message, weights, tmp_path, capsys):  # noqa: F811
  out = tmp_path / 'out'
  sets.check_refused(run(out, weights, *arguments), out, message, capsys)


def damaged(weights, tmp_path, change):  # noqa: F811
  shutil.copytree(weights, tmp_path / 'weights')
  change(tmp_path / 'weights')
  return tmp_path / 'weights'


def cut(folder):
  path = folder / 'controlnet' / 'diffusion_pytorch_model.safetensors'
  path.write_bytes(path.read_bytes()[:-100])


def lost(folder):
  (folder / 'sd' / 'unet' / 'diffusion_pytorch_model.safetensors').unlink()


def swapped(folder):
  shutil.rmtree(folder / 'sd')
  (folder / 'inpaint').rename(folder / 'sd')


def wider(folder):
  path = folder / 'controlnet' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'cross_attention_dim': 16}))


def coloured(folder):
  path = folder / 'controlnet' / 'config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'conditioning_channels': 2}))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lost, 'unet has no weights'),
    (swapped, 'is of a model for inpainting'),
    (wider, 'does not fit the UNet: cross_attention_dim 16, 8'),
    (coloured, 'hints of 2 channels'),
  ],
)
def test_weights_that_do_not_fit(change, message, weights, tmp_path, capsys):  # noqa: F811
  assert run(tmp_path / 'out', damaged(weights, tmp_path, change)) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_weights_that_are_cut_short(loaded_once, weights, tmp_path):  # noqa: F811
  folder = damaged(weights, tmp_path, cut)
  of = dict(weights=str(folder / 'sd'), controlnet=str(folder / 'controlnet'), size=32)
  stylist = make_style.opened(options.StyleOptions(**of, scenes=options.SceneOptions()))
  with pytest.raises(UserError, match='cannot be read as a safetensors file'):
    loaded_once(stylist, Interrupt())


def test_other_settings_in_the_folder_are_refused(whole, weights, capsys):  # noqa: F811
  before = content(whole)
  assert run(whole, weights, '--stop', '4', TWO, '--config.guidance=3') == 2
  assert 'guidance: 8.0 there, 3.0 now' in capsys.readouterr().err
  assert run(whole, weights, '--stop', '3', '--config.domains.fog=mist') == 2
  assert 'prompt' in capsys.readouterr().err
  assert run(whole, weights, '--stop', '3', TWO, '--config.seed=1') == 2
  assert 'seed: 0 there, 1 now' in capsys.readouterr().err
  assert content(whole) == before


def listed(folder, text, image=True):
  """A scene as files, in a list of one line."""
  scene = procedural.Drawn(0, 32, 1).scene(0)
  city = folder / 'training' / 'target' / 'val' / 'bonn'
  city.mkdir(parents=True)
  (folder / 'training' / 'seg' / 'val' / 'bonn').mkdir(parents=True)
  if image:
    Image.fromarray(scene[1]).save(city / 'bonn_1_leftImg8bit.png')
  label = folder / 'training/seg/val/bonn/bonn_1_gtFine_labelIds.png'
  Image.fromarray(scene[2]).save(label)
  name = 'val/bonn/bonn_1_leftImg8bit.png'
  row = {'image': f'training/target/{name}', 'conditioning_image': f'training/seg/{name}'}
  (folder / 'val.jsonl').write_text('\n' + json.dumps(row | {'text': text}) + '\n')
  return [f'--config.scenes.root={folder}', f'--config.scenes.captions={folder / "val.jsonl"}']


def test_captions_of_a_file_are_used(weights, tmp_path):  # noqa: F811
  given = listed(tmp_path / 'scenes', 'a quiet road')
  assert run(tmp_path / 'out', weights, '--stop', '1', *given) == 0
  rows = map(json.loads, (tmp_path / 'out' / 'index.jsonl').read_text().splitlines())
  assert {(r['scene'], r['prompts']['prompt']) for r in rows} == {
    ('bonn/bonn_1', f'a quiet road, in {d}') for d in options.DOMAINS
  }


def test_a_caption_without_its_image_is_named_by_its_line(weights, tmp_path, capsys):  # noqa: F811
  given = listed(tmp_path / 'scenes', 'a road', image=False)
  assert run(tmp_path / 'out', weights, *given) == 2
  assert 'val.jsonl, line 2: no file' in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_reference_brings_every_fault_back():
  made = command.with_faults(options.StyleOptions(reference=True))
  assert (made.genval_steps, made.trailing_comma, made.truncated, made.aliased) == (True,) * 4
  assert made == dataclasses.replace(made, reference=True)
  plain = command.with_faults(options.StyleOptions())
  assert not any(getattr(plain, name) for name in options.StyleOptions.FAULTS)
  objects = options.ObjectOptions(
    reference=True, refine=options.RefineOptions(), masks=options.MaskOptions()
  )
  objects = command.with_faults(objects)
  assert objects.refine == options.RefineOptions(area='full', bare_prompt=True)
  assert objects.masks.swapped_channels
  text = lambda made: make_style.Stylist.prompt(FakeStylist(made), 'a road', 'fog')
  assert text(plain) == 'a road, in fog'
  assert text(made) == 'a road, in fog, '


@dataclasses.dataclass
class FakeStylist:
  made: options.StyleOptions


def test_a_square_is_cut_by_the_published_rule():
  """style.square is replayed against the published samples."""
  made = options.StyleOptions(size=16, aliased=True, scenes=options.SceneOptions())
  drawn = make_style.scene_files.of(options.SceneOptions(height=32, count=2))
  scenes = [drawn[k] for k in range(2)]  # drawn once
  stylist = make_style.Stylist(made, scenes, FakePipeline(), None, None, None)
  offsets = set()
  for index in range(6):
    seen = stylist.seen(index)
    (scene,) = [s for s in scenes if s.name == seen.scene]
    found = [o for o in range(33) if np.array_equal(style.square(scene.image, o, 16), seen.image)]
    assert any(np.array_equal(style.square(scene.labels, o, 16), seen.labels) for o in found)
    offsets.update(found)
  assert len(offsets) > 3


class FakePipeline:
  networks = (UNet(**tiny.SIZES), tiny.AUTOENCODER, None)


def test_whole_scenes_keep_their_shape():
  made = options.StyleOptions(crop='full', size=512)
  assert make_style.picture_size(made, 1024, 2048, 64) == (512, 1024)
  assert make_style.picture_size(made, 1080, 1920, 64) == (512, 896)
  assert make_style.picture_size(made, 1920, 1080, 64) == (896, 512)


def test_keys_are_of_seed_index_name_and_use():
  drawn = [programs.keys(*of) for of in ((0, 1), (0, 2), (1, 1), (0, 1, 'fog'), (0, 1, 'rain'))]
  values = {tuple(key) for keys in drawn for key in keys.values()}
  assert len(values) == 5 * len(programs.USES)
  again = programs.keys(0, 1, 'rain')
  assert all(np.array_equal(again[use], drawn[4][use]) for use in programs.USES)


@pytest.mark.slow
def test_four_devices_make_the_same_images(whole, weights, tmp_path):  # noqa: F811
  flags = os.environ['XLA_FLAGS'] + ' --xla_force_host_platform_device_count=4'
  code = (
    'import pathlib, sys; from tests.generate import sets; '
    f"sys.exit(sets.run('style', {str(tmp_path)!r}, pathlib.Path({str(weights)!r}), "
    f"'--stop', '3', {TWO!r}))"
  )
  subprocess.run([sys.executable, '-c', code], check=True, env=os.environ | {'XLA_FLAGS': flags})
  one, four = content(whole), content(tmp_path)
  assert {*one} == {*four}
  for name in one:
    if name.endswith('.png'):
      pair = [np.asarray(Image.open(folder / name), int) for folder in (whole, tmp_path)]
      assert np.abs(pair[0] - pair[1]).max() <= 1, name
