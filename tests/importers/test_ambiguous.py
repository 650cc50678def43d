"""Released weights of the Probabilistic U-Net, PHiSeg and SSN, written as torch writes them."""

import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax import checkpoints
from car_jax.importers import __main__ as command
from car_jax.importers import ambiguous
from tests.golden.fill import state_dict as filled
from tests.importers.torch_writer import state_dict, write_zip

FOLDER = pathlib.Path('tests/golden/families')
FORMATS = dict(prob_unet='prob_unet', phiseg='phiseg', ssn='ssn_unet_binary')
CONFIGS = dict(
  prob_unet=['--config.method.model.widths=(8, 12, 16)', '--config.method.model.latent=3'],
  phiseg=['--config.method.model.widths=(6, 8, 10, 10)', '--config.method.model.levels=3'],
  ssn=['--config.method.model.widths=(8, 12, 16)', '--config.method.rank=4'],
)


def manifest(name):
  return json.loads((FOLDER / f'manifest_{FORMATS[name]}.json').read_text())


def run(name, file, out, *more):
  size = '--config.data.size=32'
  return command.main([name, str(file), '--out', str(out), size, *CONFIGS[name], *more])


def written(path, weights, prefix=''):
  return write_zip(path, state_dict({prefix + k: np.float32(v) for k, v in weights.items()}))


@pytest.mark.parametrize('name', FORMATS)
def test_a_released_file_becomes_a_checkpoint(name, tmp_path):
  weights = filled(manifest(name))
  if name == 'phiseg':  # two input channels in the recorded posterior: one-hot labels of two
    assert weights['posterior.contracting_path.0.layers.0.convolution.0.weight'].shape[1] == 3
  assert run(name, written(tmp_path / 'x.pth', weights), tmp_path / 'run') == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as c:
    state, meta = c.restore(0, None)
  assert meta['data']['num_classes'] == 2
  params = state['net']['params']
  if name == 'ssn':
    kernel = np.concatenate([weights[f'{head}.weight'] for head in ambiguous.HEADS])
    np.testing.assert_array_equal(params['out']['kernel'], np.float32(kernel[..., 0, 0].T))
  elif name == 'prob_unet':
    theirs = weights['posterior.encoder.layers.7.weight']
    ours = params['posterior_down1']['conv1']['kernel']
    np.testing.assert_array_equal(ours, np.float32(theirs).transpose(2, 3, 1, 0))
  else:
    theirs = weights['likelihood.likelihood_post_c_path.0.convolution.1.convolution.0.weight']
    ours = params['likelihood']['merge0']['conv2']['kernel']
    np.testing.assert_array_equal(ours, np.float32(theirs).transpose(2, 3, 1, 0))


@pytest.mark.parametrize('name', FORMATS)
def test_every_number_has_one_place(name):
  shapes = manifest(name)
  sizes = np.cumsum([0] + [int(np.prod(s)) for s in shapes.values()])
  places = {
    n: np.arange(a, a + int(np.prod(s))).reshape(s)
    for (n, s), a in zip(shapes.items(), sizes, strict=False)
  }
  ours = [np.ravel(x) for x in jax.tree.leaves(ambiguous.to_variables(name, places))]
  found = np.sort(np.concatenate(ours).astype(int))
  unused = [n for n in shapes if name == 'phiseg' and '.upsampling_path.2.' in n]
  left = sum(int(np.prod(shapes[n])) for n in unused)
  assert len(np.unique(found)) == len(found) == sizes[-1] - left


@pytest.mark.parametrize(
  ('name', 'change', 'more', 'message'),
  [
    ('ssn', lambda w: w | {'odd': np.ones(2)}, (), 'odd (2,): no place for it'),
    ('phiseg', lambda w: w | {'odd': np.ones(2)}, (), 'odd (2,): no place for it'),
    (
      'prob_unet',
      lambda w: {k: v for k, v in w.items() if k != 'prior.conv_layer.bias'},
      (),
      'prior/bias (6,): not in the file',
    ),
    (
      'ssn',
      lambda w: {k: v for k, v in w.items() if k != 'cov_factor_l.bias'},
      (),
      'mean_l.bias (1,): no place for it',
    ),
    ('prob_unet', lambda w: {'a': np.ones(2)}, (), 'has no weights of Probabilistic U-Net'),
    (
      'prob_unet',
      lambda w: filled(manifest('ssn')),
      (),
      "holds weights of SSN, the config trains 'prob_unet'\n  use car-jax import ssn",
    ),
    ('ssn', lambda w: w, ('--config.method.rank=5',), 'weights do not fit'),
    ('ssn', lambda w: w, ('--config.method.one_logit=False',), 'weights do not fit'),
  ],
)
def test_mistakes_leave_no_folder(name, change, more, message, tmp_path, capsys):
  file = written(tmp_path / 'x.pth', change(filled(manifest(name))))
  assert run(name, file, tmp_path / 'run', *more) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
