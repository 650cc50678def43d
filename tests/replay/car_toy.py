"""CAR's 1-D toy: a seed's data, the exact likelihood, every net's losses and gradients."""

import json
from typing import Any

import jax
import numpy as np

from car_jax.data import toy_regression
from car_jax.methods.car_toy import CARToy
from tests.golden.fill import state_dict
from tests.replay import Replay, replays
from tests.whole import whole

NEAR = 1e-5


def to_params(state: dict[str, np.ndarray]) -> dict[str, Any]:
  """`model.K.weight` [out, in], `model.K.bias` -> layerK/kernel [in, out], layerK/bias."""
  params: dict[str, Any] = {}
  for name, value in state.items():
    _, k, leaf = name.split('.')
    layer = params.setdefault(f'layer{k}', {})
    array = np.float32(value)
    layer['kernel' if leaf == 'weight' else 'bias'] = array.T if leaf == 'weight' else array
  return params


def norms(grads: dict[str, Any], names: np.ndarray) -> np.ndarray:
  """L2 of each gradient, by the recorded names."""
  leaf = {'weight': 'kernel', 'bias': 'bias'}
  parts = [str(name).split('.') for name in names]
  return np.array([np.linalg.norm(grads[f'layer{k}'][leaf[kind]]) for _, k, kind in parts])


def nets(r: Replay) -> tuple[CARToy, dict[str, Any]]:
  """The method with the file's widths and number of draws, and the filled nets."""
  manifests = {
    which: json.loads((r.folder / f'toy_{name}.manifest.json').read_text())
    for which, name in dict(F='calnet', G='generator', D='discriminator').items()
  }
  biases = [shape[0] for name, shape in manifests['G'].items() if name.endswith('bias')]
  method = CARToy(hidden=tuple(biases[:-1]), samples=int(r['n_samples']), calibration_weight=1.0)
  return method, {k: to_params(state_dict(m)) for k, m in manifests.items()}


@replays('car', 'toy_regression')
def data(r: Replay) -> None:
  pi, sigma = float(r['pi']), float(r['sigma'])
  # The law is stored in single precision; the generator's choices want what was meant.
  pi, sigma = (float(np.format_float_positional(np.float32(v))) for v in (pi, sigma))
  rng = np.random.RandomState(int(r['seed']))
  for k in ('1', '2'):
    x, y = toy_regression.sample(rng, len(r[f'xs{k}']), pi, sigma)
    r.check(f'xs{k}', x, NEAR)
    r.check(f'ys{k}', y, NEAR)
  x = r['xs1']
  r.check('ll', toy_regression.log_likelihood(x, r['y_query'], pi, sigma), 1e-3)
  r.check('mean', (2 * pi - 1) * toy_regression.height(x), NEAR)


@replays('car', 'toy_regression')
def training(r: Replay) -> None:
  method, net = nets(r)
  x, y, points = r['xs1'], r['ys1'], len(r['xs1'])
  mean = whole(method.predict_mean)(net['F'], x)
  r.check('y_cal', np.asarray(mean)[:, None], NEAR)
  loss, grads = whole(jax.value_and_grad(method.calnet_loss))(net['F'], x, y)
  r.check('loss_cal_nll', loss, NEAR)
  r.check('cal_grad_l2', norms(grads, r['cal_grad_names']), NEAR, relative=True)

  fake = np.asarray(whole(method.generate)(net['G'], x, mean, r['noise1']))
  r.check('y_ref1', fake, NEAR)
  r.check('d_logit_real', whole(method.judge)(net['D'], x, y[:, None]), NEAR)
  r.check('d_logit_fake', whole(method.judge)(net['D'], x, fake), NEAR)
  critic = whole(jax.value_and_grad(method.discriminator_loss))
  loss, grads = critic(net['D'], x, y, fake[:, 0])
  r.check('loss_dis', loss, NEAR)
  r.check('dis_grad_l2', norms(grads, r['dis_grad_names']), NEAR, relative=True)

  noise = r['noise'].reshape(points, -1)  # each x is repeated for its draws
  r.check('y_ref', np.reshape(whole(method.generate)(net['G'], x, mean, noise), (-1, 1)), NEAR)
  refine = whole(jax.value_and_grad(method.generator_loss, has_aux=True))
  (loss, terms), grads = refine(net['G'], net['D'], x, mean, noise)
  r.check('loss_kl', terms['loss/calibration'], NEAR)
  r.check('loss_adv', terms['loss/adversarial'], NEAR)
  r.check('loss_gen_total', loss, NEAR)
  r.check('gen_grad_l2', norms(grads, r['gen_grad_names']), NEAR, relative=True)
