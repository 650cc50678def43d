"""Flow matching's loss and solvers against velocities whose ways are known; replayed in
tests/replay."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods.flow_matching import FlowMatching, Noise
from tests.methods.learning import check_it_learns
from tests.methods.test_ccdm import NET
from tests.methods.test_ssn import batch

KEY = jax.random.key(0)
METHOD = FlowMatching(3, 4, NET, optim=dict(lr=2e-2), solver='euler', sampling_steps=4)


@dataclasses.dataclass(frozen=True)
class Known(FlowMatching):
  """One whose velocity is a given function of x, the image and the time."""

  velocity: Any = None

  def predicting(self, state, image, n):
    return lambda x, time: self.velocity(x, image[:, None], time)


def flowed(velocity, steps, solver, start, image=None, **options):
  method = Known(
    3,
    4,
    NET,
    sampling_steps=steps,
    solver=solver,
    pixel_mean=(0.5,),
    pixel_std=(0.5,),
    velocity=velocity,
    **options,
  )
  b = batch(image=image)
  return np.asarray(jax.jit(lambda x: method.flowed(None, b, x))(start))


def test_solvers_go_the_way_of_their_formulas():
  """dx/dt = a x: each Euler step multiplies by 1 + a h, each midpoint step by 1 + a h +
  (a h)^2 / 2; many of them by exp(a)."""
  start = np.random.default_rng(0).normal(size=(2, 1, 8, 8, 3))
  for a in (-1.5, 0.7):
    for steps in (1, 5):
      h = a / steps
      factors = dict(euler=1 + h, midpoint=1 + h + h * h / 2)
      for solver, factor in factors.items():
        got = flowed(lambda x, image, t, a=a: a * x, steps, solver, start)
        np.testing.assert_allclose(got, start * factor**steps, rtol=1e-5, atol=1e-6)
  got = flowed(lambda x, image, t: -1.5 * x, 100, 'midpoint', start)
  np.testing.assert_allclose(got, start * np.exp(-1.5), rtol=1e-3, atol=1e-6)


def test_times_of_the_steps_are_those_of_the_net():
  """dx/dt = t, as the net sees it: Euler sums the starts of steps, midpoint is exact."""
  start = np.zeros((2, 1, 8, 8, 3))
  v = lambda x, image, t: jnp.full_like(x, t)
  np.testing.assert_allclose(flowed(v, 4, 'euler', start), 0.375, rtol=1e-5)
  np.testing.assert_allclose(flowed(v, 4, 'midpoint', start), 0.5, rtol=1e-5)
  got = flowed(v, 4, 'midpoint', start, time_scale=100.0)
  np.testing.assert_allclose(got, 50, rtol=1e-5)


def test_a_velocity_towards_a_map_ends_there():
  """The velocity of a single map x_1 is (x_1 - x) / (1 - t): any number of Euler steps reach it."""
  end = 2 * np.eye(3)[np.random.default_rng(1).integers(0, 3, (2, 1, 8, 8))] - 1
  start = np.random.default_rng(0).normal(size=end.shape)
  for steps in (1, 3):
    got = flowed(lambda x, image, t: (end - x) / (1 - t), steps, 'euler', start)
    np.testing.assert_allclose(got, end, atol=1e-5)


def test_guidance_adds_what_the_image_changes():
  start = np.zeros((2, 1, 8, 8, 3))
  v = lambda x, image, t: 2 + image + 0 * x
  options = dict(image=0.25, image_dropout=0.2)
  for guidance in (0.0, 0.3):
    got = flowed(v, 1, 'euler', start, guidance=guidance, **options)
    np.testing.assert_allclose(got, (1 + guidance) * 2.25 - guidance * 2, rtol=1e-5)


@pytest.mark.parametrize('one_channel', [False, True])
def test_the_loss_is_the_mean_squared_error_of_a_net_that_says_nothing(one_channel):
  """Its first velocity is 0, so what is left is the mean square of x_1 - x_0 at known pixels."""
  classes = 2 if one_channel else 3
  options = dict(num_classes=classes, one_channel=one_channel, ignore_label=2)
  method = FlowMatching(**vars(METHOD) | options)
  b = batch()
  b['label'][0, :3] = 2  # no class of two, the ignored one of three
  state = method.init(0, b)
  noise = jax.device_get(jax.jit(method.training_noise)(KEY, b))
  ones = np.eye(classes + 1)[b['label']][..., 1:2] if one_channel else np.eye(3)[b['label']]
  error = np.square(2 * ones - 1 - noise.start)[b['label'] < 2].mean()
  parts, _, _ = jax.jit(method.loss)(state.net.variables, b, noise)
  assert float(parts['loss/velocity']) == pytest.approx(error, rel=1e-5)
  nobody = b | {'label': np.full_like(b['label'], 2)}
  assert float(jax.jit(method.loss)(state.net.variables, nobody, noise)[0]['loss/velocity']) == 0


def test_ignored_pixels_are_not_seen():
  """What the net is given does not tell the label that an ignored pixel has."""
  method = FlowMatching(**vars(METHOD) | dict(ignore_label=2))
  label, known = np.array([[[0, 1, 2]]]), np.array([[[True, True, False]]])
  end = np.asarray(jax.jit(method.end)(label, known, np.zeros(1, np.float32)))
  np.testing.assert_array_equal(end[0, 0], [[1, -1, -1], [-1, 1, -1], [0, 0, 0]])


def test_the_image_is_dropped_for_some_images():
  method = FlowMatching(**vars(METHOD) | dict(image_dropout=0.3))
  many = {'image': np.zeros((4000, 1, 1, 3), np.float32)}
  noise = jax.jit(method.training_noise)(KEY, many)
  assert np.asarray(noise.seen).mean() == pytest.approx(0.7, abs=0.03)
  assert np.asarray(noise.time).mean() == pytest.approx(0.5, abs=0.03)
  skewed = FlowMatching(**vars(METHOD) | dict(skewed_times=True))
  times = np.asarray(jax.jit(skewed.training_noise)(KEY, many).time)
  normal = np.log(1 / times - 1)  # 1.2 n - 1.2
  assert normal.mean() == pytest.approx(-1.2, abs=0.1)
  assert normal.std() == pytest.approx(1.2, abs=0.1)
  state = method.init(0, batch())
  params = jax.tree.map(lambda p: p + np.float32(0.1), state.net.params)
  loss = jax.jit(lambda b, seen: method.loss({'params': params}, b, Noise(*given, seen))[0])
  given = jax.random.normal(KEY, (2, 8, 8, 3)), np.full(2, 0.5, np.float32)
  other = batch(image=0.1)  # standardised there is nothing to see in it
  got = [
    float(loss(b, np.array(seen))['loss/velocity'])
    for b, seen in ((batch(), [True] * 2), (batch(), [False] * 2), (other, [False] * 2))
  ]
  assert got[0] != got[1] == got[2]


def test_it_learns_and_its_samples_do_not_depend_on_the_batch():
  check_it_learns(METHOD, batch(), 'loss/velocity', 0.5)


def test_one_euler_step_of_one_channel():
  method = FlowMatching(2, 4, NET, solver='euler', sampling_steps=1, one_channel=True)
  state = method.init(0, batch())
  assert state.net.params['conv_out']['kernel'].shape[-1] == 1
  start = np.float32([0.0039, 0.004, -3, 3])[:, None]  # below and above 1 / 255
  start = np.tile(start, (2, 1, 8, 2, 1)).reshape(2, 1, 8, 8, 1)
  probs = jax.jit(method.drawn)(state, batch(), start)  # its first velocity is 0
  np.testing.assert_array_equal(np.argmax(probs, -1), start[..., 0] >= 1 / 255)
  assert method.noise(KEY, 5, 8, 8).shape == (5, 8, 8, 1)
  assert method.noise(KEY, 5, 7, 5).shape == (5, 8, 6, 1)  # at sizes that the net takes


def test_another_net_that_sees_the_time():
  """By its shapes: one step, and samples of an image whose sides it does not take."""
  model = dict(name='linear_attention_unet', width=8, multipliers=(1, 2))
  method = FlowMatching(2, 4, model, solver='euler', sampling_steps=2)
  state = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, method.init(0, batch())))
  _, logs = jax.eval_shape(method.step, state, batch(), KEY)
  assert {*logs} == {'loss/velocity'}
  small = {k: v[:, :7, :5] if k == 'image' else v for k, v in batch().items()}
  predict = lambda s, b: method.predictors()['samples'](s, b, KEY, 3).probs
  assert jax.eval_shape(predict, state, small).shape == (2, 3, 7, 5, 2)


SSN = dict(name='ssn', model=dict(name='unet', widths=(4, 4)), rank=2, samples=2)
START = FlowMatching(2, 4, NET, solver='euler', sampling_steps=2, one_channel=True, start=SSN)


def test_flows_start_from_draws_of_another_method():
  """A net that says nothing leaves them where they start."""
  state, b = START.init(0, batch()), batch(7)  # a side that neither net takes
  noise = jax.vmap(lambda key: START.noise(key, 3, 7, 7))(jax.random.split(KEY, 2))
  ssn = registry.method(SSN, num_classes=2, steps_per_epoch=4)
  own = ssn.init(0, batch(8))
  own = own.replace(net=own.net.replace(params=state.start.params))
  want = np.asarray(jax.jit(ssn.drawn)(own, b, noise))
  start = np.asarray(jax.jit(START.started)(state, b, noise))
  assert start.shape == (2, 3, 8, 8, 1)
  np.testing.assert_allclose(start[:, :, :7, :7, 0], want[..., 1], atol=1e-6)
  probs = jax.jit(START.drawn)(state, b, noise)
  np.testing.assert_array_equal(probs[..., 1], want[..., 1] >= 0.5)
  wide = FlowMatching(**vars(START) | dict(one_channel=False))
  np.testing.assert_allclose(jax.jit(wide.started)(state, b, noise)[:, :, :7, :7], want, atol=1e-6)


def test_what_flows_start_from_stays_as_it_is():
  state = START.init(0, batch())
  after, logs = jax.jit(START.step)(state, batch(), KEY)
  jax.tree.map(np.testing.assert_array_equal, after.start, state.start)
  assert (after.net.params['conv_out']['bias'] != state.net.params['conv_out']['bias']).all()
  noise = jax.jit(START.training_noise)(jax.random.split(KEY)[0], batch())
  one = jax.tree.map(lambda a: a[:, None], noise.start)
  start = np.asarray(jax.jit(START.started)(state, batch(), one))[:, 0, ..., 0]
  want = np.square(batch()['label'] - start).mean()  # the first velocity is 0
  assert float(logs['loss/velocity']) == pytest.approx(want, rel=1e-5)


def test_the_loss_of_all_readers_is_the_mean_of_theirs():
  b = batch()
  maps = np.stack([b['label'], 1 - b['label'], np.zeros_like(b['label'])], 1)
  maps[0, 2] = maps[0, 0]  # padding: the first image has two readers
  share = np.float32([[0.5, 0.5, 0], [1 / 3] * 3])
  both = FlowMatching(**vars(METHOD) | dict(num_classes=2, all_readers=True))
  one = FlowMatching(**vars(METHOD) | dict(num_classes=2))
  state = one.init(0, b)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda p: np.float32(0.1 * rng.normal(size=p.shape)), state.net.params)
  noise = jax.jit(one.training_noise)(KEY, b)
  loss = lambda method: jax.jit(lambda b, n: method.loss({'params': params}, b, n)[0])
  alone, losses = loss(one), np.zeros((2, 3))
  for i in range(2):
    row = jax.tree.map(lambda a, i=i: a[i : i + 1], (b, noise))
    for m in range(3):
      losses[i, m] = alone(row[0] | {'label': maps[i : i + 1, m]}, row[1])['loss/velocity']
  assert losses[0, 0] != pytest.approx(losses[0, 1], rel=1e-2)
  got = loss(both)(b | {'labels': maps, 'label_weight': share}, noise)['loss/velocity']
  assert float(got) == pytest.approx((losses * share).sum(1).mean(), rel=1e-4)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(num_classes=3, one_channel=True), 'one_channel is of two classes, the data have 3'),
    (dict(start=dict(name='mose', model=dict(name='mose'))), "'mose', which draws no segment"),
    (dict(start=dict(name='ccdm', model=NET)), "'ccdm', which draws no segmentation in one pass"),
    (dict(guidance=0.3), 'guidance is 0.3, but the net never learns to do without the image'),
  ],
)
def test_wrong_options(options, message):
  spec = dict(name='flow_matching', num_classes=2, model=NET) | options
  with pytest.raises(UserError, match=message):
    registry.method(spec, steps_per_epoch=1)
