"""Released weights of Probabilistic U-Net, PHiSeg, SSN, CCDM and MedFM, written as torch does."""

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
FORMATS |= dict(ccdm='ccdm_unet', flow_matching='flow_matching_medfm')
SIZES = [f'--config.method.model.{k}' for k in ('widths=(32, 64)', 'blocks=1', 'attention=(2,)')]
CONFIGS = dict(
  prob_unet=['--config.method.model.widths=(8, 12, 16)', '--config.method.model.latent=3'],
  phiseg=['--config.method.model.widths=(6, 8, 10, 10)', '--config.method.model.levels=3'],
  ssn=['--config.method.model.widths=(8, 12, 16)', '--config.method.rank=4'],
  ccdm=SIZES,
  flow_matching=SIZES,
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
  elif name in ('ccdm', 'flow_matching'):
    theirs = weights['middle_block.1.qkv.weight']
    np.testing.assert_array_equal(
      params['middle0_attention']['qkv']['kernel'], np.float32(theirs[..., 0].T)
    )
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
  got = np.sort(np.concatenate(ours).astype(int))
  unused = [n for n in shapes if name == 'phiseg' and '.upsampling_path.2.' in n]
  left = sum(int(np.prod(shapes[n])) for n in unused)
  assert len(np.unique(got)) == len(got) == sizes[-1] - left


def test_averages_are_taken(tmp_path, capsys):
  """CCDM's file holds them beside the net, MedFM's in the order of the net's parameters."""
  weights = filled(manifest('ccdm'))
  last = {k: v + 1 for k, v in weights.items()}
  file = tmp_path / 'ccdm.pt'
  as_state = lambda w: state_dict({k: np.float32(v) for k, v in w.items()})
  write_zip(file, {'model': as_state(last), 'average_model': as_state(weights)})
  assert run('ccdm', file, tmp_path / 'ccdm') == 0
  assert "'average_model' is taken; left: 'model'" in capsys.readouterr().out
  check_output_bias(tmp_path / 'ccdm', weights)
  weights = filled(manifest('flow_matching'))
  wrapped = {'num_updates': np.array(7)} | {f'model.{k}': v + 1 for k, v in weights.items()}
  wrapped |= {f'shadow_params.{k}': v for k, v in enumerate(weights.values())}
  file = written(tmp_path / 'medfm.pth', wrapped)
  assert run('flow_matching', file, tmp_path / 'medfm') == 0
  check_output_bias(tmp_path / 'medfm', weights)


def check_output_bias(folder, weights):
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    state, _ = c.restore(0, None)
  got = state['net']['params']['conv_out']['bias']
  np.testing.assert_array_equal(got, np.float32(weights['out.2.bias']))


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
      'cov_factor_l.bias is not in the file',
    ),
    ('prob_unet', lambda w: {'a': np.ones(2)}, (), 'has no weights of Probabilistic U-Net'),
    (
      'prob_unet',
      lambda w: filled(manifest('ssn')),
      (),
      "holds weights of SSN, the config trains 'prob_unet'\n  use car-jax import ssn",
    ),
    (
      'ssn',
      lambda w: w | {'cov_factor_l.weight': w['cov_factor_l.weight'][:, 1:]},
      (),
      'cov_factor_l.weight do not go together: (1, 8, 1, 1), (1, 8, 1, 1), (4, 7, 1, 1)',
    ),
    (
      'ccdm',
      lambda w: w | {'out.2.bias': np.float32([1, np.nan])},
      (),
      'out.2.bias (2,): 1 of its numbers are not finite',
    ),
    (
      'phiseg',
      lambda w: w | dict.fromkeys([ambiguous.FORMATS['phiseg'].classes], np.float32(1)),
      (),
      'weight has the shape (); expected [classes, features, height, width]',
    ),
    ('ssn', lambda w: w, ('--config.method.rank=5',), 'weights do not fit'),
    ('ccdm', lambda w: w | {'odd': np.ones(2)}, (), 'odd (2,): no place for it'),
    (
      'flow_matching',
      lambda w: {k: v for k, v in w.items() if k != 'output_blocks.1.0.skip_connection.bias'},
      (),
      'up1_1/conv_shortcut/bias (64,): not in the file',
    ),
    (
      'flow_matching',
      lambda w: w,
      ('--config.method.model.scale_shift=False',),
      'time_emb_proj/kernel: (128, 64) in the file, (128, 32) in the network',
    ),
    ('ssn', lambda w: filled(manifest('ccdm')), (), 'holds weights of CCDM or MedFM'),
    ('ssn', lambda w: w, ('--config.method.one_logit=False',), 'weights do not fit'),
  ],
)
def test_mistakes_leave_no_folder(name, change, more, message, tmp_path, capsys):
  file = written(tmp_path / 'x.pth', change(filled(manifest(name))))
  assert run(name, file, tmp_path / 'run', *more) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_second_stage_is_imported_with_its_first(tmp_path, capsys):
  """Whose run config.init names; without, nothing says what flows start from."""
  first = written(tmp_path / 'gtr.pth', filled(manifest('ssn')))
  assert run('ssn', first, tmp_path / 'gtr') == 0
  weights = filled(json.loads((FOLDER / 'manifest_flow_matching_atfm.json').read_text()))
  file = written(tmp_path / 'flow.pth', weights)
  sizes = ['--config.data.size=32', '--config.method.model.width=16']
  sizes += ['--config.method.model.multipliers=(1, 2)', '--config.method.start.rank=4']
  sizes += ['--config.method.start.model.widths=(8, 12, 16)']
  arguments = ['atfm', str(file), '--out', str(tmp_path / 'run'), *sizes]
  assert command.main(arguments) == 2
  assert 'config.init.start' in capsys.readouterr().err
  assert command.main([*arguments, f'--config.init.start={tmp_path / "gtr"}:net']) == 0
  restored = {}
  for name in ('gtr', 'run'):
    with checkpoints.Checkpoints(tmp_path / name / 'checkpoints') as c:
      restored[name] = c.restore(0, None)[0]
  jax.tree.map(
    np.testing.assert_array_equal,
    restored['run']['start']['params'],
    restored['gtr']['net']['params'],
  )
  theirs = np.float32(weights['downs.0.3.1.weight']).reshape(16, 16, 2, 2)
  ours = restored['run']['net']['params']['down0_conv']['kernel']
  np.testing.assert_array_equal(ours, theirs.transpose(2, 3, 1, 0))
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['method']['model']['multiplied_kernels']  # as these weights have learnt
