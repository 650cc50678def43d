"""The released format of MoSE's weights, written here as torch writes it."""

import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax import checkpoints
from car_jax.importers import __main__ as command
from car_jax.importers import mose
from tests.golden.fill import state_dict as filled
from tests.importers.torch_writer import state_dict, write_zip

MANIFEST = json.loads(pathlib.Path('tests/golden/mose/manifest_lidc_light.json').read_text())
LIGHT = ('--config.method.model.widths=(32, 64, 128, 192)', '--config.data.size=32')


def written(path, weights):
  names = {f'module.{name}': np.float32(value) for name, value in weights.items()}
  return write_zip(path, state_dict(names))


def run(file, out, *more):
  return command.main(['mose', str(file), '--out', str(out), *LIGHT, *more])


def test_a_released_file_becomes_a_checkpoint(tmp_path):
  weights = filled(MANIFEST)
  assert run(written(tmp_path / 'x.pth', weights), tmp_path / 'run') == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as c:
    state, meta = c.restore(0, None)
  assert meta['data']['num_classes'] == 2
  params = state['net']['params']
  first = weights['backbone.contracting_path.0.layers.0.weight']
  np.testing.assert_array_equal(
    params['down0']['conv1']['kernel'], np.float32(first).transpose(2, 3, 1, 0)
  )
  deepest = weights['backbone.upsampling_path.0.conv_block.layers.0.weight']
  np.testing.assert_array_equal(
    params['up2']['conv1']['kernel'], np.float32(deepest).transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(params['means'], np.float32(weights['mu']))


def test_every_name_has_one_place():
  places = mose.to_variables({n: np.full(s, i) for i, (n, s) in enumerate(MANIFEST.items())})
  numbers = [int(np.ravel(leaf)[0]) for leaf in jax.tree.leaves(places)]
  assert sorted(numbers) == list(range(len(MANIFEST)))


@pytest.mark.parametrize(
  ('change', 'more', 'message'),
  [
    (lambda w: w | {'odd': np.ones(2)}, (), 'odd (2,): no place for it'),
    (lambda w: {k: v for k, v in w.items() if k != 'mu'}, (), 'means'),
    (lambda w: {k: v for k, v in w.items() if 'last_layer.w' not in k}, (), 'no last_layer.weight'),
    (lambda w: w, ('--config.method.model.widths=(32, 64, 128)',), 'weights do not fit'),
    (lambda w: w, ('--config', 'configs/car_lidc.py'), "trains 'car', not MoSE"),
  ],
)
def test_mistakes_leave_no_folder(tmp_path, capsys, change, more, message):
  if more[:1] == ('--config',):
    arguments = ['mose', str(written(tmp_path / 'x.pth', filled(MANIFEST)))]
    assert command.main([*arguments, '--out', str(tmp_path / 'run'), *more]) == 2
  else:
    assert run(written(tmp_path / 'x.pth', change(filled(MANIFEST))), tmp_path / 'run', *more) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_the_classes_of_cityscapes_are_renumbered(tmp_path):
  manifest = json.loads(pathlib.Path('tests/golden/mose/manifest_city_light.json').read_text())
  weights = filled(manifest)
  more = ('--config', 'configs/mose_cityscapes.py', *LIGHT)
  file = str(written(tmp_path / 'x.pth', weights))
  assert command.main(['mose', file, '--out', str(tmp_path / 'run'), *more]) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as c:
    params = c.restore(0, None)[0]['net']['params']
  assert params['down0']['conv1']['kernel'].shape[2] == 4  # with the black box
  theirs = np.float32(weights['last_layer.bias'])  # unlabelled, road, .., road's twin
  np.testing.assert_array_equal(params['out']['bias'], [*theirs[1:], theirs[0]])
  kernel = np.float32(weights['last_layer.weight'])[..., 0, 0]
  np.testing.assert_array_equal(params['out']['kernel'][:, 0], kernel[1])
