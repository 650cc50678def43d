"""The 1-D toy of CAR against the recorded one."""

import json

import jax
import numpy as np

from car_jax.data import toy_regression as data
from car_jax.importers.rules import Rule, convert, linear
from car_jax.methods import car_toy
from tests.golden.fill import state_dict
from tests.replay import Replay, replays

TABLE = [Rule(r'model\.(\d)\.weight', r'layer\1/kernel', linear)]
TABLE += [Rule(r'model\.(\d)\.bias', r'layer\1/bias')]


def params_of(r: Replay, net: str):
  manifest = json.loads((r.folder / f'toy_{net}.manifest.json').read_text())
  return convert(TABLE, state_dict(manifest))['params']


def compare_norms(r: Replay, key: str, grads) -> None:
  ours = []
  for name in r[f'{key}_grad_names']:
    layer, leaf = name.split('.')[1:]
    grad = grads[f'layer{layer}']['kernel' if leaf == 'weight' else 'bias']
    ours.append(np.linalg.norm(np.asarray(grad, np.float64)))
  r.check(f'{key}_grad_l2', ours, 1e-5, scale=max(1.0, float(np.max(ours))))


@replays('car', 'toy_regression')
def toy(r: Replay) -> None:
  pi, sigma = float(r['pi']), float(r['sigma'])
  rng = np.random.RandomState(int(r['seed']))
  for k in ('1', '2'):
    x, y = data.reference_batch(rng, len(r[f'xs{k}']), pi, sigma)
    r.check(f'xs{k}', x, 1e-5)
    r.check(f'ys{k}', y, 1e-5)
  x, y = r['xs1'][:, None], r['ys1'][:, None]
  f, g, d = (params_of(r, net) for net in ('calnet', 'generator', 'discriminator'))
  r.check('ll', data.log_likelihood(r['xs1'], r['y_query'], pi, sigma), 1e-3)
  r.check('mean', data.mean(r['xs1'], pi), 1e-5)
  y_cal = car_toy.predict(f, x)
  r.check('y_cal', y_cal, 1e-5, scale=max(1.0, float(np.abs(y_cal).max())))
  noise1 = r['noise1'][:, None]
  noise = r['noise'].reshape(len(x), int(r['n_samples']), 1)
  ref1 = car_toy.generate(g, x, y_cal, noise1)[:, 0]
  ref = car_toy.generate(g, x, y_cal, noise)
  r.check('y_ref1', ref1, 1e-5, scale=max(1.0, float(np.abs(ref1).max())))
  r.check('y_ref', ref.reshape(-1, 1), 1e-5, scale=max(1.0, float(np.abs(ref).max())))
  for key, value in (('real', y), ('fake', ref1)):
    logit = car_toy.judge(d, x, value)
    r.check(f'd_logit_{key}', logit, 1e-5, scale=max(1.0, float(np.abs(logit).max())))
  near = {'tolerance': 1e-5, 'relative': True}
  loss, grads = jax.value_and_grad(car_toy.nll_loss)(f, x, y)
  r.check('loss_cal_nll', loss, **near)
  compare_norms(r, 'cal', grads)
  loss, grads = jax.value_and_grad(car_toy.critic_loss)(d, x, y, ref1)
  r.check('loss_dis', loss, **near)
  compare_norms(r, 'dis', grads)
  terms = car_toy.generator_terms(g, d, x, y_cal, noise)
  r.check('loss_kl', terms[0], **near)
  r.check('loss_adv', terms[1], **near)
  r.check('loss_gen_total', sum(terms), **near)
  grads = jax.grad(lambda p: sum(car_toy.generator_terms(p, d, x, y_cal, noise)))(g)
  compare_norms(r, 'gen', grads)
