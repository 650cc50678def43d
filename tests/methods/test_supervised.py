"""Plain cross-entropy training at toy size."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.methods.supervised import Supervised
from car_jax.nn.net import Net
from tests.methods import learning
from tests.methods.test_car import BATCH as UNLABELLED
from tests.methods.test_car import SIDE, B, C, changed
from tests.whole import whole

METHOD = Supervised(
  num_classes=C,
  steps_per_epoch=10,
  model=dict(name='toy_calnet', hidden=4),
  optim=dict(lr=1e-2),
)
KEY = jax.random.key(3)
BATCH = UNLABELLED | {'labels': UNLABELLED['label'][:, None]}


@pytest.fixture(scope='module')
def trained():
  return learning.trained(METHOD, BATCH, 'loss/cross_entropy')


def test_the_loss_falls_on_one_batch(trained):
  state, losses = trained
  assert losses[-1] < 0.7 * losses[0]
  assert state.step == 8
  assert changed(state.net.batch_stats, METHOD.init(0, BATCH).net.batch_stats)


def test_the_seed_decides_the_first_state():
  first, again, other = (METHOD.init(seed, BATCH).net.params for seed in (0, 0, 1))
  assert not changed(first, again)
  assert changed(first, other)


@pytest.mark.parametrize('name', METHOD.predictors())
def test_predictions_do_not_depend_on_the_batch_around_an_example(name, trained):
  predict = jax.jit(METHOD.predictors()[name], static_argnums=3)
  all_three = predict(trained[0], BATCH, KEY, 3)
  mixed = predict(trained[0], {k: v[::-1] for k, v in BATCH.items()}, KEY, 3)
  assert all_three.probs.shape == (B, 3, SIDE, SIDE, C)
  np.testing.assert_array_equal(mixed.probs[0], all_three.probs[-1])
  np.testing.assert_allclose(mixed.marginal[0], all_three.marginal[-1], atol=1e-6)
  np.testing.assert_allclose(all_three.weight, 1 / 3, rtol=1e-6)


def test_masked_labels_teach_nothing():
  ignoring = Supervised(**vars(METHOD) | {'ignore_label': 1})
  all_ignored = BATCH | {'label': np.ones_like(BATCH['label'])}
  logits = np.random.default_rng(0).normal(size=(*BATCH['label'].shape, C)).astype(np.float32)
  assert whole(ignoring.loss)(logits, all_ignored) == 0
  assert whole(METHOD.loss)(logits, all_ignored) > 0.5


SPECS = {
  'segformer': dict(widths=(4, 4, 5, 8), depths=(1, 1, 1, 1), features=8, dropout=0.0),
  'deeplabv3plus': dict(
    depth=18, blocks=(1, 1, 1, 1), stem_channels=4, features=8, low_features=4, dropout=0.0
  ),
}


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=pytest.mark.slow) for name in SPECS],  # replayed by nets-*
)
def test_published_nets_learn_one_batch(name):
  method = Supervised(C, 10, dict(name=name) | SPECS[name], dict(lr=1e-2))
  step, state, losses = jax.jit(method.step), method.init(0, BATCH), []
  for i in range(12):
    state, logs = step(state, BATCH, jax.random.key(i))
    losses.append(float(logs['loss/cross_entropy']))
  assert losses[-1] < 0.7 * losses[0]


def windowed(crop, stride):
  return Supervised(**vars(METHOD) | {'crop': crop, 'stride': stride})


def test_logits_have_the_labels_size(trained):
  batch = {'image': BATCH['image'], 'labels': np.zeros((B, 1, 21, 50), np.int32)}
  logits = jax.jit(METHOD.logits)(trained[0], batch)
  assert logits.shape == (B, 21, 50, C)
  net = whole(METHOD.net.apply)(trained[0].net.variables, BATCH['image'], train=False)
  want = jax.image.resize(net, logits.shape, 'bilinear', antialias=False)
  np.testing.assert_allclose(logits, want, atol=1e-5)
  np.testing.assert_allclose(
    jax.jit(METHOD.probabilities)(trained[0], batch), jax.nn.softmax(want), atol=1e-5
  )


def test_windows_of_the_images_size_change_nothing(trained):
  one = jax.jit(windowed(SIDE, SIDE).logits)(trained[0], BATCH)
  np.testing.assert_allclose(one, jax.jit(METHOD.logits)(trained[0], BATCH), atol=1e-6)
  many = jax.jit(windowed(16, 16).logits)(trained[0], BATCH)
  corner = jax.jit(METHOD.logits)(
    trained[0], {'image': BATCH['image'][:, :16, 16:], 'labels': BATCH['labels'][:, :, :16, 16:]}
  )
  np.testing.assert_allclose(many[:, :16, 16:], corner, atol=1e-5)


@pytest.mark.parametrize(
  ('crop', 'stride', 'hint'), [(8, 0, 6), (8, 9, 6), (0, 4, 1), (-1, 1, 1), (1, 0, 1)]
)
def test_windows_that_leave_gaps_are_refused(crop, stride, hint):
  with pytest.raises(UserError, match=rf'crop is {crop} and stride {stride}\n.*stride={hint}$'):
    windowed(crop, stride)


def looking(**options):
  return Supervised(**vars(METHOD) | options)


def test_scales_and_mirrored_copies_are_averaged_over_windows_too(trained):
  image, labels = jnp.asarray(BATCH['image'][:1]), BATCH['labels'][:1]
  of = lambda m: jax.jit(lambda x: m.probabilities(trained[0], {'image': x, 'labels': labels}))
  single, both = (
    of(windowed(20, 12)),
    of(looking(crop=20, stride=12, scales=[0.75, 1], mirror=True)),
  )
  small = jax.image.resize(image, (1, 24, 24, 3), 'bilinear', antialias=False)
  copies = []
  for x in (small, image):
    copies += [single(x), single(x[:, :, ::-1])[:, :, ::-1]]
  np.testing.assert_allclose(both(image), np.mean(copies, 0), atol=1e-5)
  np.testing.assert_allclose(both(image[:, :, ::-1]), both(image)[:, :, ::-1], atol=1e-5)


def test_one_scale_without_flip_changes_nothing(trained):
  net = whole(METHOD.net.apply)(trained[0].net.variables, BATCH['image'], train=False)
  got = whole(looking(scales=(1.0,), mirror=False).logits)(trained[0], BATCH)
  np.testing.assert_array_equal(got, net)


class Halving(Net):
  """A net of a UNet's kind: it takes even sides only."""

  multiple = 2

  @nn.compact
  def __call__(self, x, *, train):
    assert not any(side % 2 for side in x.shape[1:3])
    return x


def test_scaled_images_have_sizes_that_the_net_takes():
  image = np.zeros((1, 12, 20, 3), np.float32)
  run = lambda x: looking(scales=(0.6, 1.3)).predicted(Halving(), {}, {'image': x})
  got = jax.eval_shape(run, image)
  assert got.shape == image.shape


def test_scales_that_are_none_are_refused():
  with pytest.raises(UserError, match=r'scales is \(\); it holds .*\n.*scales=1.0$'):
    looking(scales=())
  with pytest.raises(UserError, match=r'scales is \(0.5, -1.0\).*\n.*scales=0.5$'):
    looking(scales=(0.5, -1.0))


def test_features_are_sums_of_the_last_stage_as_shares_of_the_largest():
  method = Supervised(C, 10, dict(name='tests.small:SmallBackbone'))
  state = method.init(0, BATCH)
  found = jax.jit(method.features)(state, BATCH)
  run = lambda x: method.net.apply(state.net.variables, x, train=False, mutable=['intermediates'])
  (last,) = jax.jit(run)(BATCH['image'])[1]['intermediates']['backbone_features']
  assert last.shape == (B, SIDE // 4, SIDE // 4, 8)
  total = np.asarray(last, np.float64).sum((1, 2))
  np.testing.assert_allclose(found, total / total.max(1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_a_net_without_features_names_those_with(trained):
  with pytest.raises(UserError, match=r"'toy_calnet' has no backbone features\n.*segformer"):
    METHOD.features(trained[0], BATCH)
