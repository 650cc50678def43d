"""CAR's losses, optimizers, schedules and whole training steps against the recorded ones."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from car_jax import optim
from car_jax.configs.car_lidc import get_config
from car_jax.importers import carsss
from car_jax.losses import adversarial, segmentation
from car_jax.methods import car
from car_jax.methods.train_state import TrainState
from car_jax.metrics import scores as score_maps
from tests.golden.fill import state_dict
from tests.replay import Replay, replays
from tests.whole import whole

IGNORED = 24  # the published Cityscapes set's unlabelled class, its last of 25


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def nchw(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, -3)


@replays('car', 'losses_lidc', 'losses_cityscapes')
def losses(r: Replay) -> None:
  label = r['labels'].astype(np.int32)
  classes = r['calnet_logits'].shape[1]
  mask = (label != IGNORED) if classes > IGNORED else None
  logits, probs = nhwc(r['calnet_logits']), nhwc(r['calnet_probs'])
  samples = np.moveaxis(nhwc(r['pred_dist']), 0, 1)  # [B, N, H, W, C]
  near = {'tolerance': 1e-5, 'relative': True}

  loss, grad = whole(jax.value_and_grad(segmentation.cross_entropy))(logits, label, mask)
  r.check('calnet_loss', loss, **near)
  r.check('calnet_loss_weight3', 3 * 3 * loss, **near)  # there the weight is applied twice
  r.check('calnet_loss_grad', nchw(grad), **near)

  def calibration(samples):
    return 5 * adversarial.calibration_kl(samples.mean(1), probs, mask)

  loss, grad = whole(jax.value_and_grad(calibration))(samples)
  r.check('cal_loss_weight5', loss, **near)
  r.check('cal_loss_grad', np.moveaxis(nchw(grad), 1, 0), **near)
  r.check('nonsaturating_weight10', 10 * whole(adversarial.nonsaturating)(r['scores']), **near)
  r.check('default_d_loss', whole(adversarial.critic)(r['real_scores'], r['fake_scores']), **near)
  accuracy = whole(adversarial.critic_accuracy)(r['real_scores'], r['fake_scores'])
  r.check('accuracy', accuracy, **near)
  pixel = whole(segmentation.negative_log_probability)(samples[:, 0], label)
  r.check('pixel_loss_weight2', 2 * pixel, **near)
  r.check('entropy', whole(score_maps.entropy)(probs), **near)


@replays('car', 'misc')
def optimizers(r: Replay) -> None:
  published = get_config().method
  adam = optim.optimizer(dict(published.optim.generator, milestones=()), 1)
  taken = []
  with jax.enable_x64(True):  # six float32 sums of numbers near 2 alone are off by 1e-7
    params = r['adam_p0'].astype(np.float64)
    opt_state = adam.init(params)
    for step, grad in enumerate(r['adam_grads'].astype(np.float64)):
      params, opt_state = adam.update(jnp.int32(step), grad, opt_state, params)
      taken.append(params)
  r.check('adam_params', np.stack(taken), 3e-7)  # a rounding of float32 is 1.2e-7
  for key, net in (('lr_cal', 'calnet'), ('lr_gen', 'generator'), ('lr_dis', 'discriminator')):
    per_epoch = 7
    adam = optim.optimizer(published.optim[net], per_epoch)
    rates = np.array([adam.rate(int(e) * per_epoch) for e in r['lr_epochs']])
    r.check(key, rates * 1e5, 1e-6, relative=True)
  turn = np.arange(len(r['schedule_is_g'])) % (published.critic_steps + published.rest_steps)
  r.check('schedule_is_g', turn >= published.critic_steps, 0)


def recording(transform: optax.GradientTransformation) -> optax.GradientTransformation:
  """The same transformation, whose state also keeps the last gradients it was given."""

  def update(grads, state, params):
    updates, inner = transform.update(grads, state[0], params)
    return updates, (inner, grads)

  return optax.GradientTransformation(lambda p: (transform.init(p), p), update)


@dataclasses.dataclass(frozen=True)
class Recording(optim.Adam):
  @property
  def direction(self):
    return recording(super().direction)


class RecordedCAR(car.CAR):
  """CAR that remembers each net's gradients, before the weight decay."""

  def optimizer(self, which):
    return Recording(**vars(super().optimizer(which)))


def without_dropout(spec: Any, **more: Any) -> dict[str, Any]:
  return dict(spec) | {'dropout': 0.0} | more


def method_for(r: Replay, tag: str) -> tuple[car.CAR, car.State]:
  nets = {}
  for which in ('calnet', 'generator', 'discriminator'):
    manifest = json.loads((r.folder / f'train_{tag}_{which}.manifest.json').read_text())
    nets[which] = (manifest, carsss.to_variables(KIND[tag, which], state_dict(manifest)))
  hidden = nets['generator'][0]['enc1.0.weight'][0]
  latent, classes = r['z'].shape[-1], nets['generator'][0]['out.last_layer.weight'][0]
  published = get_config().method.to_dict()
  spec = {k: v for k, v in published.items() if k not in ('name', 'optim')}
  spec |= {
    'calnet': without_dropout({'name': KIND[tag, 'calnet']}),
    'generator': without_dropout(published['generator'], hidden=hidden, latent=latent),
    'discriminator': {
      'name': 'pixel_discriminator',
      'hidden': nets['discriminator'][0]['model.1.weight'][0],
    },
    'samples': int(r['n_cal_samples']),
    'ignore_label': IGNORED if tag == 'cityscapes' else None,
  }
  if tag == 'cityscapes':
    spec['calnet']['hidden'] = nets['calnet'][0]['model.1.weight'][0]
  optimizers = {k: v | {'milestones': ()} for k, v in published['optim'].items()}
  method = RecordedCAR(num_classes=classes, steps_per_epoch=10**9, optim=optimizers, **spec)

  def trained(which):
    variables = nets[which][1]
    stats = variables.get('batch_stats', {})
    optimizer = method.optimizer(which)
    start = optimizer.direction.init(variables['params'])
    return TrainState(variables['params'], stats, start)

  parts = {which: trained(which) for which in nets}
  return method, car.State(step=jnp.int32(0), accuracy=jnp.float32(0), **parts)


KIND = {
  ('lidc', 'calnet'): 'segnet',
  ('cityscapes', 'calnet'): 'toy_calnet',
  ('lidc', 'generator'): 'unet_generator',
  ('cityscapes', 'generator'): 'unet_generator',
  ('lidc', 'discriminator'): 'pixel_discriminator',
  ('cityscapes', 'discriminator'): 'pixel_discriminator',
}


def norms_by_name(
  r: Replay, tag: str, which: str, tree: dict[str, Any], names: np.ndarray
) -> np.ndarray:
  """L2 of each array of our `tree` (params, batch_stats), by the reference's names.

  Which leaf has which name is found by importing arrays that hold their own number.
  """
  manifest = json.loads((r.folder / f'train_{tag}_{which}.manifest.json').read_text())
  numbered = {name: np.full(shape, i) for i, (name, shape) in enumerate(manifest.items())}
  numbers = carsss.to_variables(KIND[tag, which], numbered)
  reference, norms = list(manifest), {}
  for group, leaves in jax.device_get(tree).items():
    ours = jax.tree.leaves(leaves)
    for number, leaf in zip(jax.tree.leaves(numbers[group]), ours, strict=True):
      name = reference[int(np.ravel(number)[0])]
      norms[name] = np.sqrt(np.sum(np.square(leaf.astype(np.float64))))
  return np.array([norms[name] for name in names])


@replays('car', 'train_step_lidc', 'train_step_cityscapes')
def training_steps(r: Replay) -> None:
  tag = r.stem.removeprefix('train_step_')
  method, state = method_for(r, tag)
  update = jax.jit(method.update, static_argnames='phase')
  rows: dict[str, list] = {k: [] for k in ('calnet', 'adv_cal', 'dis', 'r1', 'accuracy')}
  norms: dict[str, list] = {k: [] for k in ('calnet', 'generator', 'discriminator')}
  for i, step in enumerate(r['steps']):
    batch = {'image': nhwc(r['images'][i]), 'label': r['labels'][i].astype(np.int32)}
    if 'bb_preds' in r:
      batch['black_box'] = r['bb_preds'][i].astype(np.int32)
    z = np.moveaxis(r['z'][i], 0, 1)
    before = float(r['accuracy_in_out'][i, 0])
    state = state.replace(step=jnp.int32(step), accuracy=jnp.float32(before))
    if i == 0:
      first_step_maps(r, method, state, batch, z)
    state, logs = update(state, batch, z, jax.random.key(0), phase=method.phase(int(step)))
    rows['calnet'].append(logs['loss/calnet'])
    rows['adv_cal'].append([logs['loss/adversarial'], logs['loss/calibration']])
    rows['dis'].append(logs['loss/discriminator'])
    rows['r1'].append(logs['loss/r1'] if logs['discriminator/updated'] else -1)
    rows['accuracy'].append([before, state.accuracy])
    for which, key in (('calnet', 'calnet'), ('generator', 'gen'), ('discriminator', 'dis')):
      if which != 'discriminator' or logs['discriminator/updated']:
        grads = {'params': getattr(state, which).opt_state[1]}
        norms[which].append(norms_by_name(r, tag, which, grads, r[f'{key}_grad_names']))
    if i == 0:
      running_buffers(r, tag, state)
  compare_losses(r, rows)
  compare_gradients(r, norms)


def first_step_maps(r: Replay, method: car.CAR, state: car.State, batch: Any, z: Any) -> None:
  """The first sample and F's entropy map of step 0, in training mode."""

  @jax.jit  # the state is no constant: its folding would take long
  def maps(state, batch, z):
    key = jax.random.key(0)
    _, probs, _ = method._update_calnet(state, batch, key)
    condition = method._condition(batch, probs)
    samples, *_ = method.draw(state.generator.variables, condition, z, batch['label'], key)
    return probs, samples

  probs, samples = maps(state, batch, z)
  r.check('preds0', nchw(samples[:, 0])[..., ::4, ::4], 5e-4)
  r.check('aleatoric0', np.asarray(whole(score_maps.entropy)(probs))[..., ::4, ::4], 5e-4)


def running_buffers(r: Replay, tag: str, state: car.State) -> None:
  for which, key in (('calnet', 'calnet'), ('generator', 'gen')):
    stats = {'batch_stats': getattr(state, which).batch_stats}
    l2 = norms_by_name(r, tag, which, stats, r[f'{key}_running_names'])
    r.check(f'{key}_running_l2_step0', l2, 1e-5, relative=True)


def compare_losses(r: Replay, rows: dict[str, list]) -> None:
  keys = {
    'calnet_loss': 'calnet',
    'gen_loss_adv_cal': 'adv_cal',
    'dis_loss': 'dis',
    'dis_r1': 'r1',
    'accuracy_in_out': 'accuracy',
  }
  for key, row in keys.items():
    ours, want = np.array(rows[row], np.float64), r[key]
    size = np.maximum(np.abs(want), 1e-30)
    for i in range(len(ours)):
      tolerance = 1e-4 if i == 0 else 1e-2
      error = np.max(np.abs(ours[i] - want[i]) / size[i])
      r.check(key, error, tolerance, want=0.0, name=f'{key}[{i}]')


def compare_gradients(r: Replay, norms: dict[str, list]) -> None:
  """Step 0 parameter by parameter; later steps drift by Adam's amplified rounding."""
  for which, key in (('calnet', 'calnet'), ('generator', 'gen'), ('discriminator', 'dis')):
    ours, want = np.stack(norms[which]), r[f'{key}_grad_l2'].astype(np.float64)
    r.check(f'{key}_grad_l2', abs(ours.shape[0] - want.shape[0]), 0, want=0, name=f'{key} steps')
    large = want[0] > 1e-4
    relative = np.max(np.abs(ours[0] - want[0])[large] / want[0][large], initial=0)
    r.check(f'{key}_grad_l2', relative, 2e-2, want=0, name=f'{key}_grad_l2[0] large')
    r.check(
      f'{key}_grad_l2', ours[0][~large], 1e-5, want=want[0][~large], name=f'{key}_grad_l2[0] small'
    )
    whole = [np.linalg.norm(ours[i]) / np.linalg.norm(want[i]) - 1 for i in range(len(want))]
    r.check(f'{key}_grad_l2', abs(whole[0]), 2e-3, want=0, name=f'{key}_grad_l2[0] whole')
    later = np.max(np.abs(whole[1:]), initial=0)
    r.check(f'{key}_grad_l2', later, 0.15, want=0, name=f'{key}_grad_l2[1:] whole')
