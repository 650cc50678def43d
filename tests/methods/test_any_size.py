"""Images of any size are predicted by every method; where nothing is padded nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import config as configs
from car_jax import registry
from car_jax.methods.car import CAR
from car_jax.methods.mose import MoSE
from car_jax.methods.supervised import Supervised
from car_jax.nn import net as nets
from tests.whole import whole

RNG = np.random.default_rng(0)
KEY = jax.random.key(1)
SIDES = (37, 21)
SEGNET = dict(name='segnet', widths=(4, 4, 4), depths=(1, 1, 1))
UNET = dict(name='unet_generator', hidden=4, latent=2)
SAMPLED = ('mose', 'ssn', 'prob_unet', 'phiseg', 'ccdm', 'flow_matching')
MIRROR = dict(mode='symmetric')


def images(height, width, count=2):
  return np.float32(RNG.uniform(-1, 1, (count, height, width, 3)))


def batch(height, width):
  return {'image': images(height, width), 'example': np.arange(2, dtype=np.uint32)}


@pytest.mark.parametrize('name', ['car', 'lts', *SAMPLED, 'supervised', 'abn'])
def test_every_method_predicts_images_of_their_own_size(name):
  file = 'configs/smoke.py' if name == 'lts' else 'tests/small.py'
  spec = configs.load(f'{file}:{name}').method.to_dict()
  looks = dict(scales=(0.75, 1.0), crop=20, stride=12) if name not in ('car', *SAMPLED) else {}
  method = registry.method(spec | looks, num_classes=3, steps_per_epoch=4)
  state = method.init(0, batch(32, 32))
  predict = next(iter(method.predictors().values()))
  found = jax.eval_shape(lambda s, b: predict(s, b, KEY, 2), state, batch(*SIDES))
  assert found.probs.shape == (2, 2, *SIDES, 3)


@pytest.mark.parametrize(
  ('spec', 'size', 'want'),
  [
    (SEGNET, SIDES, (40, 24)),
    (SEGNET, (40, 24), (40, 24)),
    (dict(name='fcn8s_vgg'), (33, 64), (64, 64)),
    (dict(name='segformer'), (12, 90), (29, 90)),
    (dict(name='deeplabv2_vgg'), (7, 9), (8, 9)),
    (dict(name='deeplabv3plus'), (7, 9), (7, 9)),
    (dict(name='mose'), (180, 128), (192, 128)),
    (UNET, (1, 17), (16, 32)),
  ],
)
def test_sides_that_a_net_takes(spec, size, want):
  assert nets.taken(registry.net(spec, num_classes=2), size) == want


def test_a_net_sees_the_mirrored_image_and_its_logits_are_cut_back():
  method = Supervised(3, 4, SEGNET)
  state = method.init(0, batch(40, 24))
  x = images(*SIDES)
  net = whole(method.net.apply)
  wide = np.pad(x, ((0, 0), (0, 3), (0, 3), (0, 0)), **MIRROR)
  want = net(state.net.variables, wide, train=False)[:, :37, :21]
  np.testing.assert_array_equal(whole(method.logits)(state, {'image': x}), want)
  small = images(40, 24)
  want = net(state.net.variables, small, train=False)
  np.testing.assert_array_equal(whole(method.logits)(state, {'image': small}), want)


def test_windows_are_padded_one_by_one():
  method = Supervised(3, 4, SEGNET, crop=12, stride=9)
  state = method.init(0, batch(16, 16))
  x = images(12, 21)
  net = lambda x: np.asarray(whole(method.net.apply)(state.net.variables, x, train=False))
  total, visits = np.zeros((2, 12, 21, 3)), np.zeros((12, 21, 1))
  for left in (0, 9):
    part = np.pad(x[:, :, left : left + 12], ((0, 0), (0, 4), (0, 4), (0, 0)), **MIRROR)
    total[:, :, left : left + 12] += net(part)[:, :12, :12]
    visits[:, left : left + 12] += 1
  got = jax.jit(method.logits)(state, {'image': x})
  np.testing.assert_allclose(got, total / visits, atol=1e-5)


def test_a_net_without_features_of_padding():
  spec = dict(name='fcn8s_vgg', widths=(4,) * 5, depths=(1,) * 5, features=4)
  method = Supervised(3, 4, spec)
  state = method.init(0, batch(64, 64))
  x = images(48, 40)
  wide = np.pad(x, ((0, 0), (0, 16), (0, 24), (0, 0)), **MIRROR)
  _, kept = whole(method.net.apply)(
    state.net.variables, wide, train=False, mutable=['intermediates']
  )
  (cells,) = kept['intermediates']['backbone_features']
  share = np.array([[1, 8 / 32], [0.5, 0.5 * 8 / 32]])  # of each 32 x 32 cell lies in the image
  total = np.einsum('bhwd,hw->bd', np.float64(cells), share)
  got = whole(method.features)(state, {'image': x})
  np.testing.assert_allclose(got, total / total.max(1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_mose_standardises_the_image_alone_and_its_gate_leaves_padding_out():
  model = dict(name='mose', widths=(4, 4, 4), latent=1, experts=3)
  method = MoSE(num_classes=2, steps_per_epoch=4, model=model)
  state = method.init(0, batch(16, 16))
  x = batch(10, 13)
  grey = np.float64(x['image'][..., :1])
  grey -= grey.mean((1, 2, 3), keepdims=True)
  grey /= grey.std((1, 2, 3), keepdims=True)
  wide = np.float32(np.pad(grey, ((0, 0), (0, 2), (0, 3), (0, 0)), **MIRROR))
  apply, variables = whole(method.net.apply), state.net.variables
  skips, features = apply(variables, wide, train=False, method='features')
  share = np.outer([1, 1, 0.5], [1, 1, 1, 0.25])
  coarse = np.einsum('bhwd,hw->bd', skips[-1], share) / share.sum()
  want = apply(variables, np.float32(coarse)[:, None, None], method='gate')
  got, gate = whole(method.encoded)(state, x)
  np.testing.assert_allclose(gate, want, atol=1e-5)
  np.testing.assert_allclose(got, features[:, :10, :13], atol=1e-5)
  full = batch(16, 20)
  seen, its_gate = whole(method.encoded)(state, full)
  skips, features = apply(variables, whole(method.observed)(full), train=False, method='features')
  np.testing.assert_array_equal(seen, features)
  gate = apply(variables, skips[-1], method='gate')
  np.testing.assert_array_equal(its_gate, gate)


def test_car_keeps_ignored_pixels_where_they_are():
  method = CAR(
    num_classes=3,
    steps_per_epoch=4,
    calnet=SEGNET,
    generator=UNET,
    discriminator=None,
    adversarial_weight=0.0,
    ignore_label=2,
  )
  x = batch(*SIDES)
  label = np.full((2, *SIDES), -1)
  label[:, 30:, :4] = 2
  state = method.init(0, batch(32, 32))
  found = jax.jit(method.predictors()['samples'], static_argnums=3)(
    state, x | {'label': jnp.asarray(label)}, KEY, 2
  )
  void = np.broadcast_to((label == 2)[:, None], found.probs.shape[:-1])
  np.testing.assert_array_equal(np.asarray(found.probs)[void], [[0, 0, 1]] * void.sum())
  assert np.asarray(found.probs)[~void].max() < 1
