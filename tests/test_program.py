"""A model as a program for jax alone says what the model says, where there is no car_jax."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from car_jax import load_exported, predictor, program
from car_jax.calibrate.temperature import Temperature
from car_jax.commands import sides
from car_jax.configs import smoke
from car_jax.errors import UserError
from tests import small

SHAPES = ((1, 32, 48), (3, 37, 41))  # batch sizes and image sizes, no multiple of 4
LOAD = """
import sys
sys.modules['car_jax'] = sys.modules['flax'] = None  # cannot be imported
import numpy as np
folder, data, *names = sys.argv[1:]
sys.path.insert(0, f'{folder}/{names[0]}')
from load_exported import Model
out, images = {}, np.load(data)
for name in names:
  model = Model(f'{folder}/{name}')
  out |= {f'{name}/{k}/{key}': a for k in images for key, a in model(images[k], seed=3).items()}
np.savez(f'{folder}/out.npz', **out)
"""


def model_of(c, calibrator=None, **inference) -> predictor.Predictor:
  c.method.update(inference)
  return predictor.Predictor(small.loaded(c), calibrator)


def whole(variant: str) -> predictor.Predictor:
  """Of the smoke config, without windows."""
  windows = dict(crop=0, stride=0) if variant == 'segformer' else {}
  return model_of(smoke.get_config(variant), **windows)


def images() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {str(k): rng.integers(0, 256, (*s, 3), np.uint8) for k, s in enumerate(SHAPES)}


def check_equal(model, folder: pathlib.Path) -> None:
  """Every predictor, exported and carried out by the loader alone, against the live one."""
  names = [*model.method.predictors()]
  for k, name in enumerate(names):
    options = program.Options(samples=4, predictor=name, platforms=('cpu',))
    program.export(model, folder / str(k), options)
  np.savez(folder / 'images.npz', **images())
  where = [str(folder), str(folder / 'images.npz'), *map(str, range(len(names)))]
  subprocess.run([sys.executable, '-c', LOAD, *where], check=True, cwd=folder)
  with np.load(folder / 'out.npz') as file:
    got = dict(file)
  for k, name in enumerate(names):
    of = model.method.predictors()[name]
    live = jax.jit(
      lambda state, batch, key, of=of: predictor.outputs(
        model.method, of, state, batch, key, 4, model.calibrator
      )
    )
    for j, image in images().items():
      batch = {'image': np.float32(image / 255 * 2 - 1)}
      batch['example'] = np.array([program.load_exported.zlib.crc32(x) for x in image], np.uint32)
      want = live(model.state, batch, jax.random.key(3))
      for key, array in vars(want).items():
        ours = got[f'{k}/{j}/{key}']
        assert ours.dtype == array.dtype
        np.testing.assert_allclose(
          ours, array, atol=1e-6, rtol=1e-5, err_msg=f'{name}, {SHAPES[int(j)]} {key}'
        )


@pytest.mark.parametrize('variant', ['car', 'mose', 'prob_unet', 'ssn', 'supervised'])
def test_a_program_says_what_the_model_says(variant, tmp_path):
  check_equal(model_of(small.get_config(variant)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('variant', smoke.METHODS)
def test_programs_of_whole_nets_too(variant, tmp_path):
  check_equal(whole(variant), tmp_path)


def test_a_calibrator_is_inside(tmp_path):
  model = model_of(small.get_config(), Temperature(np.float32(2.5)))
  check_equal(model, tmp_path)
  without = model_of(small.get_config())
  image = images()['0'][0]
  calm, sure = (m.predict(image).probabilities for m in (model, without))
  with np.load(tmp_path / 'out.npz') as file:
    np.testing.assert_allclose(file['0/0/probabilities'][0], calm, atol=1e-6)
  assert np.abs(calm - sure).max() > 1e-3


def test_what_goes_in_and_comes_out_is_described(tmp_path):
  options = program.Options(samples=4, size=(32, 48), platforms=('cpu',))
  program.export(model_of(small.get_config('mose')), tmp_path / 'out', options)
  about = json.loads((tmp_path / 'out' / 'model.json').read_text())
  out = program.load_exported.Model(tmp_path / 'out')(images()['0'])
  assert {one['name'] for one in about['outputs']} == set(out)
  for one in about['outputs']:
    array = out[one['name']]
    assert (one['dtype'], one['shape'][1:]) == (array.dtype.name, [*array.shape[1:]])
  model = program.load_exported.Model(tmp_path / 'out')
  grey = images()['0'][..., :1]
  for one, other in zip(model(grey).values(), model(grey.repeat(3, -1)).values(), strict=True):
    np.testing.assert_array_equal(one, other)
  for wrong in (np.zeros((32, 48, 3)), np.zeros((32, 48), np.uint8)):
    with pytest.raises(ValueError, match='not uint8'):
      model(wrong)
  np.save(tmp_path / 'wrong.npy', wrong)
  loader = tmp_path / 'out' / 'load_exported.py'
  for name, message in (('wrong.npy', 'images are uint8'), ('none.npy', 'No such file')):
    command = [sys.executable, loader, tmp_path / name, tmp_path / 'out.npz']
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_windows_need_a_size(tmp_path):
  model = model_of(small.get_config('segformer'))
  with pytest.raises(UserError, match='averages windows .*\n.*--size 32,32'):
    program.traced(model, program.Options(platforms=('cpu',)))
  exported, _ = program.traced(model, program.Options(size=(32, 48), platforms=('cpu',)))
  assert exported.in_avals[-3].shape[1:] == (32, 48, 3)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(samples=0), '--samples cannot be 0'),
    (dict(platforms=('gpu',)), "no 'gpu'\n.*known: cpu, cuda"),
    (dict(predictor='argmaxx'), "no predictor 'argmaxx'\n.*argmax"),
  ],
)
def test_mistakes_in_the_options(options, message):
  with pytest.raises(UserError, match=message):
    program.traced(model_of(small.get_config()), program.Options(**options))


@pytest.mark.parametrize('text', ['64', '64,0', 'a,b', '64,64,3'])
def test_a_size_is_two_numbers(text):
  with pytest.raises(UserError, match='HEIGHT,WIDTH'):
    sides.both(text, '--size')


def test_the_loader_without_files_says_how_it_is_called(tmp_path):
  loader = shutil.copy(load_exported.__file__, tmp_path)
  done = subprocess.run([sys.executable, loader], capture_output=True, text=True, check=False)
  assert done.returncode == 1
  assert 'python load_exported.py IMAGES.npy OUT.npz' in done.stderr
