"""Segmenters put together: auxiliary heads, parts of one's own, memory for time, resizing."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from car_jax import options, registry
from car_jax.errors import UserError
from car_jax.methods.supervised import Supervised
from car_jax.nn.composed import Composed, Head, normalised
from car_jax.nn.init import initialize
from tests.whole import whole

RESNET = dict(name='resnet', depth=18, stem_channels=8, deep_stem=True, output_stride=8)
RESNET |= dict(blocks=(1, 1, 1, 1))
PSP = dict(name='psp', features=8, scales=(1, 2), dropout=0.0)
THIRD = dict(name='fcn', index=2, features=8, num_convs=1, concat_input=False, dropout=0.0)
NET = dict(name='composed', backbone=RESNET, head=PSP, align_corners=True)
RNG = np.random.default_rng(0)
BATCH = dict(
  image=RNG.uniform(-1, 1, (2, 33, 48, 3)).astype(np.float32),
  label=np.where(RNG.random((2, 33, 48)) < 0.2, 255, RNG.integers(0, 3, (2, 33, 48))),
)


def method(model=NET, **more):
  spec = dict(name='supervised', model=model, num_classes=3, ignore_label=255) | more
  return registry.method(spec | dict(optim=dict(name='sgd', lr=0.1)), steps_per_epoch=1)


def stepped(of: Supervised):
  step = lambda state, batch: of.step(state, batch, jax.random.key(0))
  return jax.device_get(jax.jit(step)(of.init(0, BATCH), BATCH))


def test_auxiliary_heads_learn_in_training_alone():
  of = method(NET | dict(auxiliary=dict(third=dict(head=THIRD, weight=0.3))))
  state, logs = stepped(of)
  assert 'auxiliary_third' in state.net.params
  variables = of.init(0, BATCH).net.variables
  run = lambda v, x: of.net.apply(v, x, train=True, mutable=['batch_stats', 'auxiliary'])
  (logits, kept), x = jax.jit(run)(variables, BATCH['image']), BATCH['label']
  (low,) = kept['auxiliary']['third']
  seen = [(0.3, low), (1.0, logits)]
  known, want = x != 255, []
  for weight, y in seen:
    full = whole(resized)(np.asarray(y))
    entropies = optax.softmax_cross_entropy_with_integer_labels(full, np.where(known, x, 0))
    want.append(weight * float((np.asarray(entropies) * known).mean()))
  np.testing.assert_allclose([logs['loss/third'], logs['loss/cross_entropy']], want, rtol=1e-4)
  plain = jax.jit(lambda v, x: of.net.apply(v, x, train=False))(variables, BATCH['image'])
  inner = {k: {n: p for n, p in v.items() if n != 'auxiliary_third'} for k, v in variables.items()}
  alone = jax.jit(lambda v, x: method().net.apply(v, x, train=False))(inner, BATCH['image'])
  np.testing.assert_array_equal(plain, alone)


def resized(y):
  """By jax's own resizing where corner pixels stay, one axis at a time."""
  for axis, side in ((1, 33), (2, 48)):
    source = y.shape[axis]
    at = np.arange(side) * (source - 1) / (side - 1)
    low = np.minimum(at.astype(int), source - 2)
    share = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
    y = y.take(low, axis) * (1 - share) + y.take(low + 1, axis) * share
  return y


def test_what_is_computed_again_changes_nothing():
  (state, logs), (other, again) = stepped(method()), stepped(method(remat=True))
  assert logs == again
  near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # of rounding
  jax.tree.map(near, state.net, other.net)


def test_blocks_alone_are_kept_for_the_gradient():
  """Each of the four is computed again on its own, from what goes into it."""
  of = method(remat=True)
  state = of.init(0, BATCH)
  text = str(jax.make_jaxpr(lambda s, b: of.step(s, b, jax.random.key(0)))(state, BATCH))
  assert text.count('remat2[') >= 4


def test_images_are_normalised_as_the_options_say():
  pixels = RNG.integers(0, 256, (1, 4, 4, 3))
  got = normalised(np.float32(pixels / 127.5 - 1), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
  np.testing.assert_allclose(got, (pixels - [1, 2, 3]) / [4, 5, 6], rtol=1e-4, atol=1e-4)
  other = method(NET | dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
  variables = other.init(0, BATCH).net.variables
  run = jax.jit(lambda net, v, x: net.apply(v, x, train=False), static_argnums=0)
  assert (
    np.abs(
      run(other.net, variables, BATCH['image']) - run(method().net, variables, BATCH['image'])
    ).max()
    > 1e-3
  )


class Flat(Head):
  """The first map's channels, classified place by place."""

  def __call__(self, maps, *, train):
    raise NotImplementedError


def test_a_head_of_ones_own_is_named_by_its_module(monkeypatch):
  spec = NET | dict(head=dict(name=f'{__name__}:Flat', features=4))
  full = options.completed_part('net', spec, 'method.model')
  assert full['head']['features'] == 4
  assert isinstance(registry.net(spec, num_classes=2).parts()[2], Flat)
  with pytest.raises(UserError, match=r"no head 'pps'\n.*psp"):
    registry.net(NET | dict(head=dict(name='pps')), num_classes=2).parts()


@pytest.mark.parametrize(
  ('resnet', 'message'),
  [
    (dict(strides=(1, 2)), '4 stages, 2 strides'),
    (dict(multi_grid=(1, 2, 4)), '3 dilations in multi_grid and 1 blocks'),
  ],
)
def test_a_resnet_of_two_minds_is_refused(resnet, message):
  net = registry.net(NET | dict(backbone=RESNET | resnet), num_classes=2)
  with pytest.raises(UserError, match=message):
    initialize(net, 0, BATCH['image'], train=False)


def test_nets_with_names_of_their_own_have_the_same_parameters():
  """Weights of a file fit the net of either spelling."""
  own = registry.net(
    dict(name='deeplabv3plus', depth=18, stem_channels=8, features=8), num_classes=3
  )
  head = dict(name='deeplabv3plus', features=8)
  parts = registry.net(NET | dict(backbone=RESNET | dict(blocks=()), head=head), num_classes=3)
  assert isinstance(parts, Composed)
  first, second = (initialize(n, 0, BATCH['image'], train=False) for n in (own, parts))
  jax.tree.map(np.testing.assert_array_equal, first, second)
  assert dataclasses.fields(parts)
