"""The authors' names for every net, and their file as a checkpoint of ours."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import carsss
from car_jax.nn.init import initialize
from tests.golden.fill import state_dict as filled
from tests.importers.torch_writer import state_dict, write

GOLDEN = pathlib.Path(__file__).parent.parent / 'golden' / 'car'

# net, its manifest, its other options, the shapes of its inputs
NETS = [
  ('segnet', 'segnet', {}, [(1, 32, 32, 3)]),
  ('toy_calnet', 'toycalnet', {}, [(1, 32, 32, 28)]),
  ('deeplabv3', 'deeplabv3', {}, [(1, 32, 32, 3)]),
  ('unet_generator', 'unet_generator', {'hidden': 32, 'latent': 8}, [(1, 32, 32, 5), (1, 1, 8)]),
  ('unet_vae_generator', 'unet_vae', {'hidden': 16, 'latent': 5}, [(3, 0, 0, 5), (1, 1, 5)]),
  ('pixel_discriminator', 'discriminator_a', {}, [(1, 32, 32, 5)]),
]


@functools.cache
def manifest_of(name: str) -> dict[str, list[int]]:
  return json.loads((GOLDEN / f'{name}.manifest.json').read_text())


@functools.cache
def template_of(net: str, manifest: str) -> dict:
  """Shapes of our variables for the net that the manifest describes."""
  _, _, options, inputs = next(row for row in NETS if row[1] == manifest)
  theirs = manifest_of(manifest)
  head = next((theirs[n] for n in HEADS if n in theirs), [0])
  if net == 'unet_vae_generator':  # its mu layer tells the image size it was built for
    cells = theirs['mu.1.weight'][1] // (8 * options['hidden'])
    side = 16 * int(np.sqrt(cells))
    inputs = [(1, side, 16 * cells // (side // 16), 5), inputs[1]]
  model = registry.net({'name': net} | options, num_classes=head[0])
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs]
  start = lambda *x: model.init(jax.random.key(0), *x, train=False)
  return {k: v for k, v in jax.eval_shape(start, *arrays).items() if k != 'intermediates'}


HEADS = ('model.21.weight', 'model.classifier.4.weight', 'out.last_layer.weight', 'out.1.bias')


def numbered(manifest: str) -> dict[str, np.ndarray]:
  """Every weight filled with its own number, in no memory."""
  shapes = manifest_of(manifest).items()
  return {name: np.broadcast_to(np.float32(i), s) for i, (name, s) in enumerate(shapes)}


@pytest.mark.parametrize(('net', 'manifest'), [row[:2] for row in NETS])
def test_every_weight_of_every_net_has_one_place(net, manifest):
  weights = numbered(manifest)
  variables = carsss.to_variables(net, weights, template_of(net, manifest))
  got = sorted(int(leaf.ravel()[0]) for leaf in jax.tree.leaves(variables))
  unused = [i for i, name in enumerate(weights) if name.startswith('project_z.')]
  assert got == sorted(set(range(len(weights))) - set(unused))


@pytest.mark.parametrize(('net', 'manifest'), [row[:2] for row in NETS])
def test_leftovers_on_either_side_are_refused(net, manifest):
  weights = numbered(manifest)
  first = next(iter(weights))
  missing = {k: v for k, v in weights.items() if k != first} | {'odd.weight': np.ones(3)}
  with pytest.raises(UserError) as e:
    carsss.to_variables(net, missing, template_of(net, manifest))
  assert str(e.value).startswith('2 weights do not fit')
  assert 'odd.weight (3,): no place for it' in str(e.value)
  assert 'not in the file' in str(e.value)


# their name -> our path, by the tables of layers in the paper's supplement
PLACES = [
  ('toy_calnet', 'toycalnet', 'model.6.weight', 'params/conv2/kernel', (2, 3, 1, 0)),
  ('toy_calnet', 'toycalnet', 'model.18.running_var', 'batch_stats/norm4/var', (0,)),
  ('toy_calnet', 'toycalnet', 'model.3.bias', 'params/norm1/bias', (0,)),
  ('unet_generator', 'unet_generator', 'dec2.0.weight', 'params/dec2_up/transposed_kernel', 'T'),
  ('unet_generator', 'unet_generator', 'zres1.residual.weight', 'params/noise1/shift/kernel', 'L'),
  ('unet_generator', 'unet_generator', 'zres2.scale.bias', 'params/noise2/scale/bias', (0,)),
  ('unet_generator', 'unet_generator', 'out.scale.weight', 'params/head/scale/kernel', 'L'),
  ('pixel_discriminator', 'discriminator_a', 'model.13.weight', 'params/down2/kernel', 'C'),
  ('pixel_discriminator', 'discriminator_a', 'out.1.weight', 'params/score/kernel', 'L'),
]
AXES = {'C': (2, 3, 1, 0), 'T': (2, 3, 0, 1), 'L': (1, 0)}


@pytest.mark.parametrize(('net', 'manifest', 'theirs', 'ours', 'axes'), PLACES)
def test_places_and_layouts_by_name(net, manifest, theirs, ours, axes):
  weights = filled({theirs: manifest_of(manifest)[theirs]})
  group, *path = ours.split('/')
  leaf = carsss.to_variables(net, weights)[group] if group == 'params' else None
  leaf = leaf or carsss.convert(carsss.TABLES[net](), weights)[group]
  for part in path:
    leaf = leaf[part]
  want = weights[theirs].transpose(AXES.get(axes, axes)).astype(np.float32)
  np.testing.assert_array_equal(leaf, want)


def test_segnets_aliases_must_agree():
  aliases = json.loads((GOLDEN / 'segnet.aliases.json').read_text())
  weights = numbered('segnet')
  weights |= {alias: weights[of] for alias, of in aliases.items()}
  assert len(weights) == 236
  carsss.to_variables('segnet', weights, template_of('segnet', 'segnet'))
  weights['dec4.decode.9.bias'] = weights['dec4.decode.9.bias'] + 1
  with pytest.raises(UserError, match=r'dec4\.decode\.9\.bias: differs from another name'):
    carsss.to_variables('segnet', weights)


# A whole file ------------------------------------------------------------------------------------

PUBLISHED = 'tests/importers/published.py'
LAYOUTS = {'kernel': {4: (3, 2, 0, 1), 2: (1, 0)}, 'transposed_kernel': {4: (2, 3, 0, 1)}}


def exported(net: str, manifest: str, variables: dict) -> dict[str, np.ndarray]:
  """Our variables under the authors' names; which is which is found with numbered arrays."""
  names = list(manifest_of(manifest))
  places = carsss.to_variables(net, numbered(manifest))
  out = {}
  for group in ('params', 'batch_stats'):
    flat = jax.tree_util.tree_flatten_with_path(places[group])[0]
    leaves = jax.tree.leaves(variables[group])
    for (path, number), leaf in zip(flat, leaves, strict=True):
      name, kind = names[int(number.ravel()[0])], path[-1].key
      array = leaf.transpose(LAYOUTS[kind][leaf.ndim]) if kind in LAYOUTS else leaf
      if len(manifest_of(manifest)[name]) > array.ndim:
        array = array[..., None, None]
      out[name] = array.astype(np.int64) if kind == 'count' else array
  return out


@pytest.fixture(scope='module')
def tiny() -> tuple[dict, dict]:
  """The nets with few channels: our variables, and the same under the authors' names."""
  c = configs.load(PUBLISHED).method
  ours, theirs = {}, {}
  z = np.zeros((1, 1, c.generator.latent))
  image, pair = np.zeros((1, 32, 32, 3)), np.zeros((1, 32, 32, 5))
  for part, manifest, *inputs in (
    ('calnet', 'segnet', image),
    ('generator', 'unet_generator', pair, z),
    ('discriminator', 'discriminator_a', pair),
  ):
    model = registry.net(c[part], num_classes=2)
    ours[part] = {'batch_stats': {}} | initialize(model, 11, *inputs, train=False)
    rng = np.random.default_rng(3)
    ours[part] = jax.tree.map(
      lambda a, rng=rng: rng.integers(1, 99, a.shape).astype(a.dtype), ours[part]
    )
    theirs[part] = exported(c[part].name, manifest, ours[part])
  return ours, theirs


def contents(theirs: dict, calnet: str = 'prior') -> dict:
  names = {'calnet': calnet, 'generator': 'generator', 'discriminator': 'discriminator'}
  return {names[part]: state_dict(weights) for part, weights in theirs.items()}


def run(file, out, *more) -> int:
  return command.main(['car', str(file), '--out', str(out), '--config', PUBLISHED, *more])


@pytest.mark.parametrize('key', ['prior', 'calibration_net'])
def test_a_published_file_becomes_a_checkpoint_that_restores_equal(tmp_path, tiny, key):
  ours, theirs = tiny
  file = write(tmp_path / 'x.pickle', contents(theirs, key))
  assert run(file, tmp_path / 'run') == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as c:
    state, meta = c.restore(0, None)
  for part, variables in ours.items():
    for group in ('params', 'batch_stats'):
      got = state[part].get(group) or {}
      jax.tree.map(np.testing.assert_array_equal, got, variables[group] or {})
  assert meta['imported'] == str(file)
  assert meta['data']['num_classes'] == 2
  assert (
    configs.saved(json.loads((tmp_path / 'run' / 'config.json').read_text())).data.name == 'fake'
  )


def broken(theirs: dict, part: str, change) -> dict:
  return theirs | {part: change(dict(theirs[part]))}


def without(name):
  return lambda weights: {k: v for k, v in weights.items() if k != name}


@pytest.mark.parametrize(
  ('change', 'more', 'message'),
  [
    (lambda t: broken(t, 'generator', without('zres1.scale.bias')), (), 'generator as unet_gen'),
    (lambda t: broken(t, 'calnet', lambda w: w | {'odd': np.ones(1)}), (), r'odd \(1,\): no place'),
    (lambda t: broken(t, 'generator', without('out.last_layer.weight')), (), 'out.last_layer'),
    (lambda t: t, ('--config.data.size=64',), 'discriminator as pixel_discriminator'),
    (lambda t: t, ('--config.data.size=40',), 'multiples of 32.*40x40.*nearest 32x32'),
    (lambda t: t, ('--config.data.size=0',), 'data.size'),
    (lambda t: t, ('--config.nope=1',), "unknown config key 'nope'"),
    (lambda t: t, ('--bogus',), '--bogus'),
  ],
)
def test_mistakes_exit_2_with_a_message_and_leave_no_folder(
  tmp_path, tiny, capsys, change, more, message
):
  import re

  file = write(tmp_path / 'x.pickle', contents(change(tiny[1])))
  assert run(file, tmp_path / 'run', *more) == 2
  told = capsys.readouterr().err
  assert told.startswith('error: ')
  assert re.search(message, told)
  assert 'Traceback' not in told
  assert not (tmp_path / 'run').exists()


def test_parts_that_are_none_on_one_side_only(tmp_path, tiny, capsys):
  content = contents(tiny[1]) | {'discriminator': None}
  assert run(write(tmp_path / 'x.pickle', content), tmp_path / 'run') == 2
  assert 'discriminator is in the config only' in capsys.readouterr().err


def test_a_file_without_the_nets(tmp_path, tiny, capsys):
  content = {k: v for k, v in contents(tiny[1]).items() if k != 'prior'}
  assert run(write(tmp_path / 'x.pickle', content), tmp_path / 'run') == 2
  assert "it has no 'calibration_net' or 'prior'" in capsys.readouterr().err
  assert run(tmp_path / 'nowhere', tmp_path / 'run') == 2
  assert 'no file' in capsys.readouterr().err
  (tmp_path / 'junk').write_text('hello')
  assert run(tmp_path / 'junk', tmp_path / 'run') == 2
  assert 'cannot be read as a file of torch weights' in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('odd', [{'a': 1}, [1, 2], 'text'])
def test_nets_that_are_no_tables_of_weights(tmp_path, tiny, capsys, odd):
  file = write(tmp_path / 'x.pickle', contents(tiny[1]) | {'generator': odd})
  assert run(file, tmp_path / 'run') == 2
  assert 'generator' in capsys.readouterr().err


def test_other_mistakes_on_the_command_line(tmp_path, capsys):
  assert command.main(['cars', 'x', '--out', str(tmp_path / 'run')]) == 2
  assert "no importer 'cars'\n  did you mean: car" in capsys.readouterr().err
  supervised = 'configs/smoke.py:supervised'
  assert command.main(['car', 'x', '--out', str(tmp_path / 'r'), '--config', supervised]) == 2
  assert 'no method of CAR' in capsys.readouterr().err


def test_a_run_is_not_written_over(tmp_path, tiny, capsys):
  (tmp_path / 'config.json').write_text('{}')
  assert run(write(tmp_path / 'x.pickle', contents(tiny[1])), tmp_path) == 2
  assert 'choose another --out' in capsys.readouterr().err


def test_the_nets_of_cityscapes_see_a_black_box(tmp_path):
  """The published config at the image size that the recorded training has."""
  parts = ('calnet', 'generator', 'discriminator')
  theirs = {part: filled(manifest_of(f'train_cityscapes_{part}')) for part in parts}
  file = write(tmp_path / 'x.pickle', contents(theirs))
  more = ('--config', 'configs/car_cityscapes.py', '--config.data.size=32')
  assert command.main(['car', str(file), '--out', str(tmp_path / 'run'), *more]) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as c:
    state, meta = c.restore(0, None)
  assert meta['data']['num_classes'] == 25
  first = np.float32(theirs['calnet']['model.1.weight'])
  np.testing.assert_array_equal(
    state['calnet']['params']['conv1']['kernel'], first.transpose(2, 3, 1, 0)
  )
  assert first.shape[1] == 3 + 25
