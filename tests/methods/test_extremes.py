"""Families of ambiguous segmentation where data or options are as small and uneven as can be."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods import mixture
from car_jax.methods.ccdm import CCDM
from car_jax.methods.flow_matching import FlowMatching
from car_jax.methods.phiseg import PHiSeg
from car_jax.methods.ssn import SSN
from tests.methods.test_ccdm import NET
from tests.methods.test_ssn import UNET, batch

KEY = jax.random.key(0)
FAMILIES = dict(
  ssn=dict(model=UNET, rank=2, samples=2),
  prob_unet=dict(model=dict(name='prob_unet', widths=(4, 4), latent=2)),
  phiseg=dict(model=dict(name='phiseg', widths=(4, 4), levels=2, latent=1)),
  ccdm=dict(model=NET, diffusion_steps=2),
  flow_matching=dict(model=NET, solver='euler', sampling_steps=1),
)


def trained(method, b, steps):
  """-> the state, and each of the logs over the steps."""
  state, step = method.init(0, b), jax.jit(method.step)
  logs = []
  for k in range(steps):
    state, of_step = step(state, b, jax.random.key(k))
    logs.append(of_step)
  return state, {name: np.array([of_step[name] for of_step in logs]) for name in logs[0]}


def sampled(method, state, b, n=8):
  return jax.jit(method.predictors()['samples'], static_argnums=3)(state, b, KEY, n).probs


def check_finite(tree):
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('limit', [0.0, 1.0])
def test_ssn_learns_a_uniform_region(limit):
  """All pixels alike, of images and of labels: what makes the covariance of released code singular.
  The limit bounds what a pixel varies by on its own; without it variances grow as the best of a
  step's draws alone is asked for, and the mean is right."""
  flat = batch(image=0.5)
  flat['label'] = np.ones_like(flat['label'])
  method = SSN(2, 4, UNET, optim=dict(lr=1e-2), rank=3, samples=4, log_variance_limit=limit)
  state, logs = trained(method, flat, 200)
  check_finite((state.net.params, logs))
  assert np.mean(logs['loss/likelihood'][-20:]) < 0.2 * logs['loss/likelihood'][0]
  variance = np.asarray(jax.jit(method.normal)(state, flat).variance)
  assert limit == 0 or (np.abs(np.log(variance)) < limit + 1e-3).all()
  mean = jax.jit(method.predictors()['mean'], static_argnums=3)(state, flat, KEY, 1).probs
  for probs, least in ((mean, 0.95), (sampled(method, state, flat), 0.6)):
    check_finite(probs)
    assert (np.argmax(probs, -1) == 1).mean() > least


def test_phiseg_learns_from_one_annotator():
  """Whose label is then what all samples say; running statistics of batch norms take that long."""
  model = dict(name='phiseg', widths=(8, 8), levels=2, latent=1)
  b = batch(16)
  method = PHiSeg(2, 4, model, optim=dict(lr=1e-2))
  state, logs = trained(method, b, 300)
  check_finite((state.net.params, logs))
  labels = np.argmax(sampled(method, state, b), -1)
  assert (labels == b['label'][:, None]).mean() > 0.95


class Seeing(CCDM):
  """One whose net says [0.9, 0.1] where it sees the first class, and else [0.4, 0.6]."""

  def predicting(self, state, image, n):
    return lambda x, time: jnp.log(x @ jnp.float32(NET_PROBABILITIES))


NET_PROBABILITIES = [[0.9, 0.1], [0.4, 0.6]]


def chances(steps):
  """Of the second class at the end of the chain, by Bayes' rule: each value, and how often."""
  kept = np.asarray(Seeing(2, 4, NET, diffusion_steps=2)._schedule.kept, float)
  if steps == 1:
    return {0.1: 0.5, 0.6: 0.5}  # noise is seen
  noised = lambda share: share * np.eye(2) + (1 - share) / 2  # [from, to]
  second = 0.0
  for seen in (0, 1):
    for start in (0, 1):
      before = noised(kept[0])[start] * noised(kept[1] / kept[0])[:, seen]
      second += 0.5 * NET_PROBABILITIES[seen][start] * before[1] / before.sum()
  return {0.1: 1 - second, 0.6: second}


@pytest.mark.parametrize('sampling', [1, 2])
def test_a_chain_of_two_steps_ends_with_what_the_net_says(sampling):
  method = Seeing(2, 4, NET, diffusion_steps=2, sampling_steps=sampling, last_step='probabilities')
  second = sampled(method, None, batch(), 64)[..., 1]
  for value, often in chances(sampling).items():
    assert np.isclose(second, value, atol=1e-5).mean() == pytest.approx(often, abs=0.02)
  likeliest = Seeing(2, 4, NET, diffusion_steps=2, sampling_steps=sampling)
  np.testing.assert_array_equal(sampled(likeliest, None, batch(), 64)[..., 1], second > 0.5)


def test_one_euler_step_goes_all_the_way():
  """x_1 = x_0 + v(x_0, 0), by a net that has learnt to end at a label."""
  b = batch()
  method = FlowMatching(2, 4, NET, optim=dict(lr=2e-2), solver='euler', sampling_steps=1)
  state, logs = trained(method, b, 60)
  check_finite((state.net.params, logs))
  noise = jax.vmap(lambda key: method.noise(key, 3, 8, 8))(jax.random.split(KEY, 2))
  image = method.observed(b)
  velocity = method.predicting(state, image, 3)(noise, 0.0)
  got = jax.jit(method.flowed)(state, b, noise)
  np.testing.assert_allclose(got, noise + velocity, atol=1e-5)
  assert (np.argmax(sampled(method, state, b), -1) == b['label'][:, None]).mean() > 0.9


def test_an_ensemble_of_one_draws_what_its_member_draws():
  b = batch()
  method = SSN(2, 4, UNET, rank=2, samples=2)
  state = method.init(0, b)
  one = mixture.Mixture('ensemble', [mixture.Member(method)])
  (predict,) = one.predictors().values()
  probs = jax.jit(predict, static_argnums=3)((state,), b, KEY, 5).probs
  want = jax.jit(method.predictors()['samples'], static_argnums=3)
  np.testing.assert_allclose(probs, want(state, b, jax.random.fold_in(KEY, 0), 5).probs, atol=1e-6)


def setting(name):
  """-> number of classes, a batch, options of the method."""
  b, classes, options = batch(), 2, {}
  if name == 'ignored':
    b['label'] = b['labels'] = np.full_like(b['label'], 1)
    b['labels'], options = b['label'][:, None], dict(ignore_label=1)
    classes = 3
  elif name == 'one class':
    b['label'] = np.zeros_like(b['label'])
  elif name == 'one image':
    b = {key: value[:1] for key, value in b.items()}
  elif name == '19 classes':
    b['label'], classes = np.arange(128, dtype=np.int32).reshape(2, 8, 8) % 19, 19
  elif name == 'black box':
    b['black_box'], options = b['label'], dict(black_box='one_hot')
  return classes, b, options


@functools.cache
def made(family, classes, options):
  spec = dict(name=family, **FAMILIES[family], optim=dict(lr=1e-3)) | dict(options)
  ignored = spec.pop('ignore_label', None)
  return registry.method(spec, num_classes=classes, steps_per_epoch=4, ignore_label=ignored)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('data', ['ignored', 'one class', 'one image', '19 classes', 'black box'])
def test_small_and_uneven_data_are_learnt_from(family, data):
  classes, b, options = setting(data)
  method = made(family, classes, tuple(options.items()))
  state, logs = trained(method, b, 3)
  check_finite((state.net.params, logs))
  probs = np.asarray(sampled(method, state, b, 3))
  assert probs.shape == (len(b['label']), 3, *b['label'].shape[1:], classes)
  np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)
  if data == 'ignored':  # nothing is known: nothing but the latents is learnt
    named = [v for k, v in logs.items() if k in ('loss/likelihood', 'loss/cross_entropy')]
    assert not any(v.any() for v in named)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
def test_sides_that_a_net_does_not_take_are_predicted_and_refused_in_training(family):
  b = batch()
  method = made(family, 2, ())
  state, _ = trained(method, b, 1)
  image = np.pad(b['image'], ((0, 0), (0, 25), (0, 39), (0, 0)))
  wide = b | dict(image=image, label=np.zeros((2, 33, 47), np.int32))
  assert sampled(method, state, wide, 2).shape == (2, 2, 33, 47, 2)
  with pytest.raises(UserError, match='not 33x47; nearest 32x48'):
    method.init(0, wide)


CHOICES = dict(
  ccdm=dict(sampling_steps=1, last_step='probabilities'),
  flow_matching=dict(solver='midpoint', sampling_steps=3, guidance=0.5),
)


@pytest.mark.parametrize('name', CHOICES)
def test_options_of_prediction_change_no_step_of_training(name):
  dropped = dict(image_dropout=0.2) if name == 'flow_matching' else {}
  made = lambda **kw: registry.method(
    dict(name=name, **FAMILIES[name], **dropped) | kw, num_classes=2, steps_per_epoch=4
  )
  assert made().prediction_options == (*CHOICES[name],)
  b = batch()
  state = made().init(0, b)
  step = lambda method: str(jax.make_jaxpr(method.step)(state, b, KEY))
  assert step(made(**CHOICES[name])) == step(made())


def test_a_flow_reads_the_black_box_where_what_it_starts_from_does():
  start = dict(name='ssn', **FAMILIES['ssn'])
  spec = dict(name='flow_matching', **FAMILIES['flow_matching'])
  for boxes in ('', 'number'):
    context = dict(num_classes=2, steps_per_epoch=4)
    method = registry.method(spec | dict(start=start | dict(black_box=boxes)), **context)
    assert method.reads_black_box == bool(boxes)


def test_norms_of_parameters_that_are_zero_have_no_gradient():
  model = FAMILIES['prob_unet']['model'] | dict(norm=True)
  method = registry.method(
    dict(name='prob_unet', model=model, norm_weight=1e-3), num_classes=2, steps_per_epoch=4
  )
  params = method.init(0, batch()).net.params
  value, slopes = jax.value_and_grad(method.norms)(params)
  counted = {k: v for k, v in params.items() if k.startswith(('prior', 'posterior', 'combine'))}
  counted.pop(f'combine{method.net.combination - 1}')
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(counted)]
  assert min(np.abs(x).max() for x in leaves) == 0  # biases
  np.testing.assert_allclose(value, sum(np.sqrt((x**2).sum()) for x in leaves), rtol=1e-5)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))
