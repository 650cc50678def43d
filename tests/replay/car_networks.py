"""CAR's networks and checkpoint reader against the recorded outputs of the published code."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from car_jax import registry
from car_jax.importers import carsss
from car_jax.losses import adversarial
from car_jax.methods.car import CAR
from car_jax.metrics import scores as score_maps
from tests.golden.fill import fill
from tests.replay import Replay, replays
from tests.whole import whole


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def nchw(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, -3)


def manifest_of(r: Replay, name: str) -> dict[str, list[int]]:
  return json.loads((r.folder / f'{name}.manifest.json').read_text())


def filled(r: Replay, name: str, net: str) -> dict[str, Any]:
  """Our variables from the recorded rule, aliases included where the set has them."""
  weights = {n: fill(n, tuple(s)) for n, s in manifest_of(r, name).items()}
  aliases = r.folder / f'{name}.aliases.json'
  if aliases.exists():
    weights |= {alias: weights[of] for alias, of in json.loads(aliases.read_text()).items()}
  if net == 'deeplabv3':  # the recorded set damps its residual branches so
    weights |= {n: 0.2 * w for n, w in weights.items() if n.endswith('.bn3.weight')}
  return carsss.to_variables(net, weights)


def apply(net: Any, variables: Any, *inputs: Any, train: bool = False, **kw: Any) -> Any:
  run = jax.jit(lambda v, *x: net.apply(v, *x, train=train, **kw))
  with jax.default_matmul_precision('highest'):
    return run(variables, *inputs)


def segnet_of(r: Replay) -> tuple[Any, Any]:
  manifest = manifest_of(r, 'segnet')
  widths = tuple(manifest[f'enc{k}.0.weight'][0] for k in range(1, 6))
  classes = manifest['out.1.weight'][0]
  net = registry.net({'name': 'segnet', 'widths': widths, 'dropout': 0.0}, num_classes=classes)
  return net, filled(r, 'segnet', 'segnet')


@replays('car', 'segnet')
def segnet(r: Replay) -> None:
  net, variables = segnet_of(r)
  assert net.num_classes == r['n_channels_out']
  logits, kept = apply(net, variables, nhwc(r['x']), mutable=['intermediates'])
  r.check('logits', nchw(logits), 1e-4, relative=True)
  soft = softmax(logits / r['temperature'], -1)
  r.check('probs_temperature', nchw(soft), 1e-4, relative=True)
  for name, (value,) in kept['intermediates'].items():
    out = nchw(value).astype(np.float64)
    l2 = np.sqrt(np.sum(np.square(out)))
    r.check(f'sum_{name}', out.sum(), 1e-3, scale=l2)
    r.check(f'l2_{name}', l2, 1e-3, relative=True)
    c, h, w = (max(1, n // by) for n, by in zip(out.shape[1:], (8, 4, 4), strict=True))
    r.check(f'slice_{name}', out[:, ::c, ::h, ::w], 1e-4, relative=True)


def running_by_name(r: Replay, variables: Any) -> dict[str, np.ndarray]:
  """Our batch_stats under the reference's names, found by importing numbered arrays."""
  manifest = manifest_of(r, 'segnet')
  numbered = {name: np.full(shape, i) for i, (name, shape) in enumerate(manifest.items())}
  numbers = carsss.to_variables('segnet', numbered)['batch_stats']
  names, ours = list(manifest), jax.tree.leaves(jax.device_get(variables))
  pairs = zip(jax.tree.leaves(numbers), ours, strict=True)
  return {names[int(np.ravel(number)[0])]: leaf for number, leaf in pairs}


@replays('car', 'segnet_train_bn')
def shared_batch_norm(r: Replay) -> None:
  net, variables = segnet_of(r)
  rng = {'dropout': jax.random.key(0)}
  logits, new = apply(net, variables, nhwc(r['x']), train=True, mutable=['batch_stats'], rngs=rng)
  r.check('logits_slice', nchw(logits)[:, :, ::2, ::2], 5e-4, relative=True)
  ours = running_by_name(r, new['batch_stats'])
  l2 = [np.linalg.norm(ours[n].astype(np.float64)) for n in r['names']]
  r.check('running_l2', l2, 1e-4, relative=True)
  r.check('nbt', [ours[n] for n in r['nbt_names']], 0)
  for short, name in (('dec5', 'dec5.2'), ('dec4', 'dec4.decode.6')):
    for kind in ('mean', 'var'):
      buffer = ours[f'{name}.running_{kind}'][::8]
      r.check(f'{short}_running_{kind}', buffer, 1e-4, relative=True)


@replays('car', 'toycalnet')
def toycalnet(r: Replay) -> None:
  manifest = manifest_of(r, 'toycalnet')
  hidden, classes = manifest['model.1.weight'][0], manifest['model.21.weight'][0]
  net = registry.net({'name': 'toy_calnet', 'hidden': hidden}, num_classes=classes)
  logits = apply(net, filled(r, 'toycalnet', 'toy_calnet'), nhwc(r['x']))
  r.check('logits', nchw(logits), 1e-4, relative=True)
  method = CAR(
    num_classes=classes,
    steps_per_epoch=1,
    calnet={'name': 'toy_calnet'},
    generator={},
    discriminator={},
    temperature=r['temperature'],
    ignore_label=classes - 1,
  )
  probs = whole(method.calibrated)(logits, r['labels'].astype(np.int32))
  r.check('calnet_preds', nchw(probs), 1e-4)
  r.check('entropy', whole(score_maps.entropy)(probs), 1e-4)


@replays('car', 'deeplabv3')
def deeplabv3(r: Replay) -> None:
  manifest = manifest_of(r, 'deeplabv3')
  stages = [
    1 + max(int(n.split('.')[3]) for n in manifest if n.startswith(f'model.backbone.layer{k}.'))
    for k in range(1, 5)
  ]
  spec = {
    'name': 'deeplabv3',
    'blocks': tuple(stages),
    'stem_channels': manifest['model.backbone.conv1.weight'][0],
    'features': manifest['model.classifier.1.weight'][0],
  }
  net = registry.net(spec, num_classes=manifest['model.classifier.4.weight'][0])
  variables = filled(r, 'deeplabv3', 'deeplabv3')
  logits, kept = apply(net, variables, nhwc(r['x']), mutable=['intermediates'])
  s = int(r['stride'])
  r.check('logits', nchw(logits)[:, :, ::s, ::s], 1e-3, relative=True)
  soft = nchw(softmax(logits / r['temperature'], -1))
  r.check('probs_temperature', soft[:, :, ::4, ::4], 1e-3, relative=True)
  features = nchw(kept['intermediates']['backbone_features'][0]).astype(np.float64)
  r.check('backbone_l2', np.sqrt(np.sum(np.square(features))), 1e-3, relative=True)
  r.check('backbone_slice', features[:, ::64], 1e-3, relative=True)


def generator_of(r: Replay, name: str, net: str, latent: int) -> tuple[Any, Any]:
  manifest = manifest_of(r, name)
  spec = {'name': net, 'hidden': manifest['enc1.0.weight'][0], 'latent': latent}
  classes = manifest['out.last_layer.weight'][0]
  return registry.net(spec, num_classes=classes), filled(r, name, net)


@replays('car', 'unet_generator')
def unet_generator(r: Replay) -> None:
  net, variables = generator_of(r, r.stem, r.stem, r['z'].shape[-1])
  assert net.hidden == r['n_hidden']
  logits = apply(net, variables, nhwc(r['x']), np.moveaxis(r['z'], 0, 1))  # [B, N, ...]
  soft = softmax(logits, -1)
  r.check('logits', np.moveaxis(nchw(logits), 1, 0), 1e-4, relative=True)
  r.check('pred_dist', np.moveaxis(nchw(soft), 1, 0), 5e-5)
  r.check('avg_pred', nchw(soft.mean(1)), 5e-5)
  from car_jax.nn.unet import NoiseInjector

  injected = nhwc(r['noise_injector_in'])[:, None]
  head = {'params': variables['params']['head']}
  out = whole(NoiseInjector(net.num_classes).apply)(head, injected, r['z'][0][:, None])
  r.check('noise_injector_out', nchw(out[:, 0]), 1e-4, relative=True)


@replays('car', 'unet_generator_c25')
def ignored_pixels(r: Replay) -> None:
  net, variables = generator_of(r, r.stem, 'unet_generator', r['z'].shape[-1])
  method = CAR(
    num_classes=net.num_classes,
    steps_per_epoch=1,
    calnet={},
    generator={'name': 'unet_generator', 'hidden': net.hidden, 'latent': net.latent},
    discriminator={},
    ignore_label=net.num_classes - 1,
  )
  label, z = r['labels'].astype(np.int32), np.moveaxis(r['z'], 0, 1)
  samples, *_ = whole(method.draw)(variables, nhwc(r['x']), z, label, None)
  r.check('pred_dist', np.moveaxis(nchw(samples), 1, 0), 5e-5)


@replays('car', 'unet_vae')
def unet_vae(r: Replay) -> None:
  net, variables = generator_of(r, r.stem, 'unet_vae_generator', r['eps'].shape[-1])
  assert net.hidden == r['n_hidden']
  out = apply(net, variables, nhwc(r['x']), np.moveaxis(r['eps'], 0, 1))
  logits, mu, logvar = out
  r.check('mu', mu, 1e-4, relative=True)
  r.check('logvar', logvar, 1e-4, relative=True)
  r.check('pred_dist', np.moveaxis(nchw(softmax(logits, -1)), 1, 0), 1e-4)
  ramp = min(float(r['b_index']) / float(r['dataset_size']), 1)
  kl = float(r['kl_weight']) * ramp * whole(adversarial.gaussian_kl)(mu, logvar)
  r.check('complexity_loss', kl, 1e-4, relative=True)


@replays('car', 'discriminator')
def discriminator(r: Replay) -> None:
  for t in ('a', 'b'):
    name = f'discriminator_{t}'
    manifest = manifest_of(r, name)
    spec = {'name': 'pixel_discriminator', 'hidden': manifest['model.1.weight'][0]}
    net = registry.net(spec, num_classes=0)
    params = filled(r, name, 'pixel_discriminator')['params']
    real, fake = nhwc(r[f'{t}_real']), nhwc(r[f'{t}_fake'])

    def score(params, x, net=net):
      return net.apply({'params': params}, x, train=False)

    def total(params, real=real, fake=fake, score=score):
      r1 = adversarial.r1_penalty(lambda x: score(params, x), real)
      scores = score(params, real), score(params, fake)
      return adversarial.critic(*scores) + 10 * jnp.mean(r1), (r1, *scores)

    (loss, (r1, s_real, s_fake)), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    r.check(f'{t}_score_real', s_real, 1e-5)
    r.check(f'{t}_score_fake', s_fake, 1e-5)
    _, kept = apply(net, {'params': params}, real, mutable=['intermediates'])
    r.check(f'{t}_features', nchw(kept['intermediates']['features'][0]), 1e-4, relative=True)
    real_loss = whole(adversarial.binary_cross_entropy)(s_real, 1.0)
    fake_loss = whole(adversarial.binary_cross_entropy)(s_fake, 0.0)
    r.check(f'{t}_real_loss', real_loss, 1e-4, relative=True)
    r.check(f'{t}_fake_loss', fake_loss, 1e-4, relative=True)
    r.check(f'{t}_r1', r1, 1e-4, relative=True)
    # In float32 a LeakyReLU's input 1e-8 from its kink falls on either side of it.
    with jax.enable_x64(True):
      wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
      slope = jax.jit(jax.grad(lambda x, p=wide: jnp.sum(score(p, x))))(real.astype(np.float64))
    r.check(f'{t}_r1_grad_slice', nchw(slope)[:, :, ::4, ::4], 1e-3, relative=True)
    r.check(f'{t}_total', loss, 1e-4, relative=True)
    names = {n: np.full(s, i) for i, (n, s) in enumerate(manifest.items())}
    numbers = carsss.to_variables('pixel_discriminator', names)['params']
    norms = np.zeros(len(manifest))
    for number, grad in zip(jax.tree.leaves(numbers), jax.tree.leaves(grads), strict=True):
      norms[int(np.ravel(number)[0])] = np.linalg.norm(np.asarray(grad, np.float64))
    order = [list(manifest).index(n) for n in r[f'{t}_grad_names']]
    r.check(f'{t}_grad_l2', norms[order], 1e-3, relative=True)


@replays('car', 'checkpoint_tiny')
def checkpoint(r: Replay) -> None:
  nets = carsss.read(r.folder / 'checkpoint_tiny.pickle')
  nets['calibration_net'] = nets.pop('calnet')
  ours = {f'{net}/{name}': a for net, weights in nets.items() for name, a in weights.items()}
  for key in sorted(r.keys()):
    r.check(key, ours.pop(key, np.nan), 0)
  for key in ours:
    raise AssertionError(f'{key} is in the pickle only')
