"""Local temperature scaling at toy size. The recorded training is replayed in tests/replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from car_jax import checkpoints, registry
from car_jax.calibrate import __main__ as command
from car_jax.calibrate import files, local
from car_jax.errors import UserError
from car_jax.init_from import init_from
from car_jax.methods.lts import LTS, image_losses
from car_jax.methods.supervised import Supervised
from car_jax.nn.init import initialize
from car_jax.nn.local_temperature import LocalTemperature
from tests.methods import learning
from tests.methods.test_car import BATCH, SIDE, B, C, changed
from tests.whole import whole

SEGMENTER = dict(name='toy_calnet', hidden=4)
METHOD = LTS(num_classes=C, steps_per_epoch=10, segmenter=SEGMENTER, optim=dict(lr=1e-2))
KEY = jax.random.key(3)


@pytest.fixture(scope='module')
def trained():
  return learning.trained(METHOD, BATCH, 'loss/cross_entropy')


def test_the_loss_falls_and_the_segmenter_stays(trained):
  state, losses = trained
  first = METHOD.init(0, BATCH)
  assert losses[-1] < losses[0]
  assert losses == sorted(losses, reverse=True)
  assert state.step == 8
  assert not changed(state.segmenter.variables, first.segmenter.variables)
  assert changed(state.net.params, first.net.params)


def test_gates_without_a_gradient_stay_at_zero(trained):
  params = trained[0].net.params
  for name in ('gate1', 'gate2', 'gate3'):
    assert not any(np.any(a) for a in params[name].values())
  for name in ('conv2', 'conv3', 'conv4'):
    assert not changed(params[name], params['conv1'])
  assert np.any(params['gate_image']['kernel'])


def test_the_prediction_is_the_segmenters_and_its_confidence_is_not(trained):
  predict = {name: jax.jit(f, static_argnums=3) for name, f in METHOD.predictors().items()}
  scaled, plain = (predict[n](trained[0], BATCH, KEY, 2) for n in ('argmax', 'before scaling'))
  assert scaled.probs.shape == (B, 2, SIDE, SIDE, C)
  np.testing.assert_array_equal(scaled.probs, plain.probs)
  assert np.max(np.abs(scaled.marginal - plain.marginal)) > 1e-3
  flipped = predict['argmax'](trained[0], {k: v[::-1] for k, v in BATCH.items()}, KEY, 2)
  np.testing.assert_allclose(flipped.marginal[0], scaled.marginal[-1], atol=1e-6)


def convolved(x, kernel, bias):
  """5 x 5, dilation 2, reflect padding 4, one output: pixel by pixel in float64."""
  x = np.pad(np.asarray(x, np.float64), ((4, 4), (4, 4), (0, 0)), mode='reflect')
  h, w = x.shape[0] - 8, x.shape[1] - 8
  out = np.full((h, w), float(bias[0]))
  for i in range(h):
    for j in range(w):
      out[i, j] += np.sum(x[i : i + 9 : 2, j : j + 9 : 2] * kernel[..., 0])
  return out


@pytest.mark.parametrize('inputs', ['logits+image', 'logits', 'image'])
def test_the_net_is_the_published_formula(inputs):
  rng = np.random.default_rng(0)
  logits, image = rng.normal(size=(1, 6, 7, 4)), rng.uniform(-1, 1, (1, 6, 7, 3))
  logits, image = logits.astype(np.float32), image.astype(np.float32)
  net = LocalTemperature(inputs)
  params = initialize(net, 0, logits, image)['params']
  assert not any(np.any(a) for a in jax.tree.leaves(params))
  np.testing.assert_allclose(net.apply({'params': params}, logits, image), 2)
  params = jax.tree.map(lambda a: rng.normal(0, 0.3, a.shape).astype(np.float32), params)
  shown = {'l': logits[0], 'i': (image[0] + 1) / 2}
  rest, own = {'logits+image': 'li', 'logits': 'll', 'image': 'ii'}[inputs]
  of = lambda name: convolved(
    shown[own if name == 'conv_image' else rest],
    *(np.asarray(params[name][leaf], np.float64) for leaf in ('kernel', 'bias')),
  )
  t = {k: of(f'conv{k}') + 1 for k in range(1, 5)}
  s = {k: 1 / (1 + np.exp(-of(f'gate{k}'))) for k in (1, 2, 3)}
  upper, lower = (t[a] * s[k] + t[b] * (1 - s[k]) for a, b, k in ((1, 2, 1), (3, 4, 2)))
  gate = 1 / (1 + np.exp(-of('gate_image')))
  mixed = gate * (upper * s[3] + lower * (1 - s[3])) + (1 - gate) * (of('conv_image') + 1)
  want = np.maximum(mixed + 1, 0) + 1e-8
  got = whole(net.apply)({'params': params}, logits, image)
  np.testing.assert_allclose(got[0, ..., 0], want, rtol=1e-5, atol=1e-5)


def test_an_unknown_input_is_told():
  with pytest.raises(UserError, match='inputs is .logit.\n  did you mean: logits'):
    registry.net(dict(name='local_temperature', inputs='logit'))


def test_each_image_is_a_mean_of_its_own():
  rng = np.random.default_rng(1)
  logits, label = rng.normal(size=(3, 4, 5, 6)), rng.integers(0, 6, (3, 4, 5))
  counts = rng.random((3, 4, 5)) < 0.6
  counts[2] = False
  logp = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
  own = -np.take_along_axis(logp, label[..., None], -1)[..., 0]
  want = [own[i][counts[i]].mean() for i in (0, 1)]
  got = image_losses(jnp.asarray(logits), jnp.asarray(label), jnp.asarray(counts))
  np.testing.assert_allclose(got, [*want, 0], rtol=1e-5)


def test_ignored_labels_teach_nothing():
  ignoring = LTS(**vars(METHOD) | {'ignore_label': 1})
  state = ignoring.init(0, BATCH)
  after, logs = jax.jit(ignoring.step)(state, BATCH | {'label': np.ones_like(BATCH['label'])}, KEY)
  assert logs['loss/cross_entropy'] == 0
  assert not changed(after.net.params, state.net.params)


def test_a_supervised_runs_net_becomes_the_segmenter(tmp_path):
  trained = Supervised(num_classes=C, steps_per_epoch=1, model=SEGMENTER).init(5, BATCH)
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as c:
    c.save(3, trained, {'config': {}})
  init = ConfigDict({'segmenter': f'{tmp_path}:net'})
  state = init_from(METHOD.init(0, BATCH), init)
  jax.tree.map(
    np.testing.assert_array_equal, jax.device_get(state.segmenter.variables), trained.net.variables
  )


def test_a_run_becomes_a_calibrator(tmp_path, trained, capsys):
  config = dict(
    method=dict(name='lts', segmenter=SEGMENTER), data=dict(name='fake', size=SIDE, batch=2), seed=4
  )
  meta = dict(config=config, data=dict(num_classes=C), image=[SIDE, SIDE, 3])
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints', keep=1) as c:
    c.save(8, trained[0], meta)
  out = tmp_path / 'lts.npz'
  assert command.main([str(tmp_path / 'run'), '--out', str(out)]) == 0
  found = files.load(out, classes=C)
  assert (found.about['kind'], found.about['seed']) == ('lts', 4)
  raw = whole(METHOD.raw_logits)(trained[0], BATCH)
  got = jax.jit(lambda c, x, image: c.apply(x, image=image))(found.calibrator, raw, BATCH['image'])
  np.testing.assert_allclose(got, METHOD.logits(trained[0], BATCH), rtol=1e-5)
  assert isinstance(found.calibrator, local.Local)
  with pytest.raises(UserError, match='needs the images'):
    found.calibrator.apply(raw)


def test_what_cannot_become_a_calibrator_is_told(tmp_path, capsys):
  assert command.main([str(tmp_path), '--out', 'x.json']) == 2
  assert 'use --out x.json.npz' in capsys.readouterr().err
  assert command.main([str(tmp_path / 'none'), '--out', 'x.npz']) == 2
  assert 'no checkpoint in' in capsys.readouterr().err
