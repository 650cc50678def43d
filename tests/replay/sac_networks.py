"""DA-SAC's networks against the recorded outputs of the published code."""

import json
import re
from typing import Any

import jax
import numpy as np

from car_jax import registry
from car_jax.importers import sac
from tests.golden.fill import fill
from tests.replay import Replay, replays
from tests.replay.car_networks import apply, nchw, nhwc

NETS = {
  'resnet101': 'deeplabv2_resnet',
  'tiny': 'deeplabv2_resnet',
  'vgg16': 'deeplabv2_vgg',
  'fcn_vgg16': 'fcn8s_vgg',
}
# Recorded tap -> ours, inside the backbone first.
TAPS = {
  'resnet101': {'stem': 'stem'} | {f'layer{k}': f'stage{k}' for k in range(1, 5)},
  'vgg16': {f'pool{k}': f'stage{k}' for k in (1, 2, 3)}
  | {'conv4': 'stage4', 'conv5': 'stage5', 'fc7': 'hidden'},
  'fcn_vgg16': {f'pool{k}': f'stage{k}' for k in (3, 4, 5)}
  | {name: f'{name}_out' for name in ('head', 'score4', 'score3')},
}


def manifest_of(folder: Any, name: str) -> dict[str, list[int]]:
  return json.loads((folder / f'manifest_{name}.json').read_text())


def spec_of(name: str, manifest: dict[str, list[int]]) -> dict[str, Any]:
  """The registry's entry for a net of these sizes."""
  wide = lambda pattern: [s[0] for n, s in manifest.items() if re.fullmatch(pattern, n)]
  spec: dict[str, Any] = {'name': NETS[name], 'normalise': False}
  if NETS[name] == 'deeplabv2_resnet':
    blocks = tuple(len(wide(rf'model\.layer{k}\.\d+\.conv1\.weight')) for k in range(1, 5))
    return spec | {'stem_channels': manifest['model.conv1.weight'][0], 'blocks': blocks}
  return spec | {'features': wide(r'(features\.44|vgg_head\.4)\.weight')[0]}


def loaded(folder: Any, name: str) -> tuple[Any, Any]:
  """-> net, variables"""
  manifest = manifest_of(folder, name)
  net = registry.net(spec_of(name, manifest), num_classes=manifest[sac.HEADS[NETS[name]]][0])
  weights = {n: np.asarray(fill(n, tuple(s)), np.float32) for n, s in manifest.items()}
  return net, sac.to_variables(NETS[name], weights)


def taps(kept: Any) -> dict[str, np.ndarray]:
  """Every sown array under its own name."""
  flat = jax.tree_util.tree_flatten_with_path(kept['intermediates'])[0]
  return {path[-2].key: nchw(value).astype(np.float64) for path, value in flat}


@replays('sac', *(f'forward_{name}' for name in TAPS))
def forward(r: Replay) -> None:
  name = r.stem.removeprefix('forward_')
  net, variables = loaded(r.folder, name)
  (low, full), kept = apply(net, variables, nhwc(r['image']), mutable=['intermediates'])
  r.check('logits', nchw(low), 1e-5, relative=True)
  full = nchw(full).astype(np.float64)
  r.check('logits_up_s4', full[:, :, ::4, ::4], 1e-5, relative=True)
  r.check('logits_up_sum', full.sum((2, 3)), 1e-5, relative=True)
  r.check('argmax', np.mean(full.argmax(1) != r['argmax']), 1e-3, want=np.zeros(()))
  r['top2_gap_min']  # says how near a tie is
  found = taps(kept)
  for theirs, ours in TAPS[name].items():
    value = found[ours]
    r.check(f'{theirs}_shape', value.shape, 0)
    r.check(f'{theirs}_mean_c', value.mean((0, 2, 3)), 1e-5, relative=True)
    r.check(f'{theirs}_rms', np.sqrt(np.mean(np.square(value))), 1e-5, relative=True)
    r.check(f'{theirs}_slice', value[:, :4], 1e-5, relative=True)
