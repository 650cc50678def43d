"""The local temperature net, its gradients and its training against the recorded ones."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers.rules import as_is, convolution
from car_jax.methods.lts import LTS, Frozen, State, image_losses
from car_jax.nn.local_temperature import LocalTemperature
from tests.golden import fill
from tests.replay import Replay, replays
from tests.whole import whole

VARIANTS = {'tm': 'logits+image', 'tm_logits': 'logits', 'tm_image': 'image'}
IGNORED = 255


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(x), 1, -1)


def nchw(x) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, 1)


def path_of(name: str) -> tuple[str, str]:
  """temperature_level_2_param_img.weight -> ('gate_image', 'kernel')"""
  layer, _, leaf = name.removeprefix('temperature_level_2_').partition('.')
  layer = layer.replace('param', 'gate').replace('img', 'image')
  return layer, {'weight': 'kernel', 'bias': 'bias'}[leaf]


def params_of(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  params: dict[str, dict[str, np.ndarray]] = {}
  for name, a in weights.items():
    layer, leaf = path_of(name)
    layout = convolution if leaf == 'kernel' else as_is
    params.setdefault(layer, {})[leaf] = layout(np.asarray(a, np.float32))
  return params


def manifest_of(r: Replay, variant: str) -> dict[str, list[int]]:
  return json.loads((r.folder / 'lts_manifest.json').read_text())[variant]


def leaf_of(tree, name: str) -> np.ndarray:
  """The array of a reference's name, in its layout."""
  layer, leaf = path_of(name)
  a = np.asarray(tree[layer][leaf])
  return a.transpose(3, 2, 0, 1) if leaf == 'kernel' else a


@replays('relis', 'lts')
def network(r: Replay) -> None:
  logits, image, labels = nhwc(r['logits']), 2 * nhwc(r['image']) - 1, r['labels']
  for variant, inputs in VARIANTS.items():
    net, manifest = LocalTemperature(inputs), manifest_of(r, variant)

    def loss_of(params, net=net):
      t = net.apply({'params': params}, logits, image)
      return jnp.sum(image_losses(logits / t, labels, labels != IGNORED)), t

    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    weights = {k: 0.3 * a for k, a in fill.state_dict(manifest).items()}
    (loss, t), grads = run(params_of(weights))
    norms = lambda grads, names=manifest: [np.linalg.norm(leaf_of(grads, n)) for n in names]
    r.check(f'{variant}_temperature', nchw(t), 1e-5)
    r.check(f'{variant}_scaled', nchw(logits / t), 1e-5)
    r.check(f'{variant}_loss', loss, 1e-5)
    r.check(f'{variant}_grad_norms', norms(grads), 1e-4, relative=True)
    (loss, t), grads = run(params_of({k: 0 * a for k, a in weights.items()}))
    r.check(f'{variant}_zero_loss', loss, 1e-5)
    r.check(f'{variant}_zero_temperature', np.unique(t)[0] * np.ones(()), 1e-6)
    r.check(f'{variant}_zero_grad_norms', norms(grads), 1e-4, relative=True)
    assert all(not leaf_of(grads, n).any() for n in manifest if 'param' in n and 'img' not in n)


@replays('relis', 'lts_train')
def training(r: Replay) -> None:
  logits, images, labels = nhwc(r['logits']), 2 * nhwc(r['images']) - 1, r['labels']
  classes, size = logits.shape[-1], int(r['accumulate'])
  method = LTS(
    num_classes=classes,
    steps_per_epoch=1,
    segmenter=dict(name='toy_calnet', hidden=2),
    optim=dict(lr=float(r['lr'])),
    ignore_label=IGNORED,
  )
  first = method.init(0, {'image': images[:1]})
  state = State(first.step, Frozen({}, {}), first.net)  # the logits are recorded
  update, losses = jax.jit(method.update), []
  for _ in range(int(r['epochs'])):
    for i in range(0, len(logits), size):
      part = slice(i, i + size)
      batch = {'image': images[part], 'label': labels[part].astype(np.int32)}
      t = whole(method.net.apply)(state.net.variables, logits[part], batch['image'])
      seen = batch['label'] != IGNORED
      losses += [*np.asarray(whole(image_losses)(logits[part] / t, batch['label'], seen))]
      state, _ = update(state, logits[part], batch)
  r.check('losses', losses, 1e-4)
  params = state.net.params
  t = whole(method.net.apply)(state.net.variables, logits[:1], images[:1])
  r.check('final_temperature_image0', nchw(t), 1e-3)
  manifest = manifest_of(r, 'tm')
  largest = [np.max(np.abs(leaf_of(params, n))) for n in manifest]
  r.check('final_abs_max', largest, 1e-4)
  for name in ('conv1', 'conv_img', 'param_img'):
    r.check(f'{name}_weight', leaf_of(params, f'temperature_level_2_{name}.weight'), 1e-4)
