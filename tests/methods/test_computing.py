"""What computes the same in less memory or faster: dtype, remat, accumulate, precision, in every
method and net."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from car_jax import config as configs
from car_jax import loop, registry
from car_jax.data import compact, opening, pipeline
from car_jax.evaluate import predict
from car_jax.methods.base import Samples
from tests import test_configs

CALNET = dict(name='toy_calnet', hidden=4)
VGG = dict(name='deeplabv2_vgg', widths=(4,) * 5, depths=(1,) * 5, features=4, rates=(1, 2))
GUIDED = dict(name='guided_unet', widths=(4, 8), blocks=1, attention=(2,), head_width=4, groups=2)
NETS = {
  'supervised': dict(model=CALNET),
  'lts': dict(segmenter=CALNET),
  'car': dict(
    calnet=CALNET,
    generator=dict(name='unet_generator', hidden=4, latent=2),
    discriminator=dict(name='pixel_discriminator', hidden=4),
    critic_steps=1,
    rest_steps=0,
  ),
  'mose': dict(model=dict(name='mose', widths=(4, 8), experts=2)),
  'ssn': dict(model=dict(name='unet', widths=(4, 8)), rank=2, samples=4),
  'prob_unet': dict(model=dict(name='prob_unet', widths=(4, 8), latent=2)),
  'phiseg': dict(model=dict(name='phiseg', widths=(4, 8), levels=2)),
  'ccdm': dict(model=GUIDED),
  'flow_matching': dict(model=GUIDED),
  'atfm': dict(model=dict(name='linear_attention_unet', width=8, multipliers=(1, 2))),
  'abn': dict(model=VGG),
  'sac': dict(model=VGG),
  'car_toy': dict(hidden=(8, 8), calibration_steps=25, samples=2),
}
FILES = {
  'car_toy': 'configs/car_toy.py',
  'atfm': 'configs/smoke.py:flow_matching',
  'diffusion': 'configs/genval_tiny.py:diffusion',
}
PRODUCTS, RECOMPUTED = ('dot_general', 'conv_general_dilated'), ('checkpoint', 'remat', 'remat2')
QUICK = ('supervised', 'car_toy')
METHODS = (*NETS, 'diffusion')
MARKED = {m: m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS}
WITH_REMAT = [MARKED[m] for m in METHODS if m not in ('lts', 'car_toy')]


def with_nets(node, **options):
  """Sets options in every net of an entry, and in the method where it has them itself."""
  for key, value in node.items():
    if key == 'optim' in options and 'calnet' in value:  # an optimizer of each net
      node[key] = dict.fromkeys(value, options[key])
    elif key in options:
      node[key] = options[key]
    elif hasattr(value, 'items'):
      with_nets(value, **options)


def method_of(name, **options):
  """A method with nets of a few channels, and batches for it."""
  c = configs.read(FILES.get(name, f'configs/smoke.py:{name}'))
  c.method = c.method.to_dict() | NETS.get(name, {})
  c = configs.complete(c)
  if name == 'diffusion':
    test_configs.made_small(c)
  else:
    c.data.batch = 100 if name == 'car_toy' else 4
  with_nets(c.method, **options)
  dataset = opening.open_dataset(c.data)
  source = dataset.split(c.data.get('train', 'train'))
  return loop.build_method(c, dataset.info, len(source)), source, dataset.info, c


def first_batch(source, info, c):
  with contextlib.closing(pipeline.train_batches(source, info, c.data, seed=0)) as batches:
    return compact.numbers(compact.expanded(next(batches)))


def trained(name, steps, **options):
  """-> the state after some steps on one batch, and the sum of the losses of each."""
  method, *rest = method_of(name, **options)
  batch = first_batch(*rest)
  # of diffusion's recomputed modules linen draws initial weights by other keys
  state, losses = method_of(name, **options | dict(remat=False))[0].init(0, batch), []
  step = jax.jit(lambda s, b: method.step(s, b, jax.random.fold_in(jax.random.key(0), s.step)))
  for _ in range(steps):
    state, logs = step(state, batch)
    losses.append(sum(float(v) for k, v in logs.items() if k.startswith('loss/')))
  return state, np.array(losses)


@pytest.mark.parametrize('name', MARKED.values())
def test_fifty_steps_in_bfloat16_are_those_of_float32(name):
  """Nearly; and what is kept between steps is float32."""
  (_, whole), (state, half) = (trained(name, 50, dtype=d) for d in ('float32', 'bfloat16'))
  kinds = {x.dtype.name for x in jax.tree.leaves(state)} - {'int32', 'uint32', 'bool'}
  assert kinds == {'float32'}
  assert not np.array_equal(whole, half)
  parts = [losses.reshape(5, 10).mean(1) for losses in (half, whole)]
  np.testing.assert_allclose(*parts, rtol=0.1)


@pytest.mark.parametrize('name', WITH_REMAT)
def test_what_is_computed_again_gives_the_same_gradients(name):
  """By the parameters after steps in proportion to gradients; and something is computed again."""
  made, counts = [], []
  for remat in (False, True):
    method, *rest = method_of(name, remat=remat)
    batch = first_batch(*rest)
    step = lambda s, b, method=method: method.step(s, b, jax.random.key(0))
    jaxpr = jax.make_jaxpr(step)(method.init(0, batch), batch).jaxpr
    # The kernels' gradients have a checkpoint too, in the branch of CPUs.
    assert any(equations(jaxpr, RECOMPUTED, but='cond')) == remat
    counts.append(len([*equations(jaxpr, PRODUCTS)]))
    made.append(trained(name, 1, remat=remat, optim=dict(name='sgd', lr=1e-2))[0])
  assert counts[1] > counts[0]
  plain, again = (jax.tree.leaves(state) for state in made)
  for a, b in zip(plain, again, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_those_of_the_batch_that_their_batches_make():
  _, *rest = method_of('car_toy')
  in_parts, *_ = method_of('car_toy', optim=dict(name='adam', lr=1e-2, accumulate=2, clip=0.1))
  whole, *_ = method_of('car_toy', optim=dict(name='adam', lr=1e-2, clip=0.1))
  batch, key = first_batch(*rest), jax.random.key(0)
  halves = [{k: v[rows] for k, v in batch.items()} for rows in (slice(0, 50), slice(50, 100))]
  object.__setattr__(in_parts, 'refine_batch', 50)
  start = in_parts.init(0, halves[0])
  state = start
  step = jax.jit(lambda s, b: in_parts.step(s, b, key))
  for half in halves:
    before, (state, _) = state, step(state, half)
  np.testing.assert_array_equal(
    before.calnet.params['layer0']['kernel'], start.calnet.params['layer0']['kernel']
  )  # no update yet
  once, _ = jax.jit(lambda s, b: whole.step(s, b, key))(whole.init(0, batch), batch)
  a, b = (jax.tree.leaves(s.calnet.params) for s in (state, once))
  for x, y in zip(a, b, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def equations(jaxpr, names, but=''):
  """The equations of a jaxpr that are called so, at any depth, but those within `but`."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in names:
      yield eqn
    if eqn.primitive.name == but:
      continue
    for value in itertools.chain(
      *(v if isinstance(v, (list, tuple)) else [v] for v in eqn.params.values())
    ):
      inner = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
      if isinstance(inner, core.Jaxpr):
        yield from equations(inner, names, but)


def precisions(function, *arguments):
  of_each = [
    e.params['precision'] for e in equations(jax.make_jaxpr(function)(*arguments).jaxpr, PRODUCTS)
  ]
  return {p[0] if isinstance(p, tuple) else p for p in of_each}


@pytest.mark.parametrize('precision', ['highest', None])
@pytest.mark.parametrize('name', ['supervised', 'lts', 'car', 'sac'])
def test_a_method_traces_at_its_precision(name, precision):
  wanted = {precision and jax.lax.Precision.HIGHEST}
  method, *rest = method_of(name, precision=precision)
  batch = first_batch(*rest)
  state, key = method.init(0, batch), jax.random.key(0)
  views = {jax.lax.Precision.HIGHEST} if name == 'sac' else set()  # are zoomed so, on TPUs
  assert precisions(lambda s, b: method.step(s, b, key), state, batch) == wanted | views
  predictor = next(iter(method.predictors().values()))
  assert precisions(lambda s, b: predictor(s, b, key, 2), state, batch) == wanted
  if method.has_logits:
    assert precisions(method.logits, state, batch) == wanted


def test_scores_multiply_at_the_highest_precision():
  samples = Samples(np.full((1, 2, 4, 4, 3), 1 / 3, np.float32), np.full((1, 2), 0.5, np.float32))
  made = precisions(lambda s: predict.summarise(s, compare=True), samples)
  assert made == {jax.lax.Precision.HIGHEST}


# Net, its inputs, and products in float32 that are meant: running statistics, latents, a score, the
# last resizing.
SMALL = {
  'segnet': (dict(widths=(4,) * 5, depths=(1,) * 5), [(1, 32, 32, 3)], 0),
  'toy_calnet': (dict(hidden=4), [(1, 32, 32, 3)], 0),
  'deeplabv3': (dict(blocks=(1, 1, 1, 1)), [(1, 64, 64, 3)], 2),
  'deeplabv3plus': (
    dict(depth=18, stem_channels=4, blocks=(1,) * 4, features=4, low_features=4),
    [(1, 64, 64, 3)],
    0,
  ),
  'deeplabv2_resnet': (dict(stem_channels=4, blocks=(1,) * 4, rates=(1, 2)), [(1, 64, 64, 3)], 0),
  'deeplabv2_vgg': ({k: v for k, v in VGG.items() if k != 'name'}, [(1, 64, 64, 3)], 0),
  'fcn8s_vgg': (dict(widths=(4,) * 5, depths=(1,) * 5, features=4), [(1, 64, 64, 3)], 0),
  'segformer': (
    dict(widths=(4, 4, 8, 8), depths=(1,) * 4, heads=(1, 1, 2, 2), features=4),
    [(1, 64, 64, 3)],
    0,
  ),
  'unet_generator': (dict(hidden=4, latent=2), [(1, 32, 32, 5), (1, 2, 2)], 6),
  'unet_vae_generator': (dict(hidden=4, latent=2), [(1, 32, 32, 5), (1, 2, 2)], 8),
  'mose': (dict(widths=(8, 8, 8), experts=2), [(1, 32, 32, 1), (1, 2, 2, 1)], 5),
  'linear_attention_unet': (
    dict(width=8, multipliers=(1, 2)),
    [(1, 16, 16, 2), (1, 16, 16, 1), (1,)],
    0,
  ),
  'guided_unet': (
    dict(widths=(4, 8), blocks=1, attention=(2,), head_width=4, groups=2),
    [(1, 16, 16, 2), (1, 16, 16, 1), (1,)],
    0,
  ),
  'local_temperature': ({}, [(1, 32, 32, 2), (1, 32, 32, 3)], 0),
  'pixel_discriminator': (dict(hidden=4), [(1, 32, 32, 5)], 1),
}
PARTED = ('upernet_swin_large', 'icnet_r18', 'ann_r50', 'apcnet_r50', 'ccnet_r50', 'gcnet_r50')
PARTED += ('setr_mla', 'segmenter', 'bisenetv1_r18', 'bisenetv2', 'semfpn_r50', 'maskformer_r101c')
PARTED += ('mask2former_swin_large', 'upernet_convnext_base', 'upernet_bit_r50', 'pspnet_r18')


def composed(variant):
  c = test_configs.load(f'segmenters_cityscapes:{variant}')
  test_configs.shrink(c.method)
  return c.method.model.to_dict()


def wide_products(spec, shapes):
  """How many products of a net in training have operands of float32, of how many."""
  net = registry.net(spec | dict(dtype='bfloat16'), num_classes=3)
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  kw = {} if spec['name'] == 'local_temperature' else {'train': True}
  keys = {name: jax.random.key(0) for name in ('params', 'dropout')}
  variables = jax.eval_shape(lambda *x: net.init(keys, *x, **kw), *inputs)
  assert {v.dtype.name for v in jax.tree.leaves(variables)} <= {'float32', 'int32'}
  run = lambda v, *x: net.apply(v, *x, rngs=keys, mutable=['batch_stats'], **kw)[0]
  jaxpr = jax.make_jaxpr(run)(variables, *inputs)
  assert {v.dtype.name for v in jaxpr.out_avals} == {'float32'}
  kinds = [eqn.invars[0].aval.dtype.name for eqn in equations(jaxpr.jaxpr, PRODUCTS)]
  return kinds.count('float32'), len(kinds)


@pytest.mark.parametrize('name', SMALL)
def test_every_net_multiplies_in_its_dtype(name):
  options, shapes, meant = SMALL[name]
  wide, count = wide_products(dict(options, name=name), shapes)
  assert wide <= meant < count


@pytest.mark.slow
@pytest.mark.parametrize('variant', PARTED)
def test_every_part_multiplies_in_its_dtype(variant):
  side = 128 if 'swin' in variant else 64
  wide, count = wide_products(composed(variant), [(2, side, side, 3)])
  assert wide <= 1 < count  # a head's last product of class scores may be in float32
