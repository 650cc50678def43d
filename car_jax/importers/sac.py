"""Snapshots of DA-SAC's authors (arXiv 2105.00097): its three networks, student and teacher."""

import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError, naming
from car_jax.importers import tables, torch_file
from car_jax.importers.rules import (
  Rule,
  Weights,
  convert,
  convolution,
  counted,
  norm,
  resnet,
  rows,
  with_bias,
)
from car_jax.importers.segmenters import first_state, with_net
from car_jax.nn.vgg import DEPTHS


def vgg(
  prefix: str,
  depths: Iterable[int] = DEPTHS[16],
  *,
  poolings: int = 5,
  path: str = 'backbone/stage{0}_conv{1}/{2}',
  parts: tuple[str, str] = ('conv', 'norm'),
) -> list[Rule]:
  """torchvision's numbers of a VGG's layers: conv, norm, ReLU, and a stage's pooling if it has one.

  `path` gives ours from stage and convolution, counted from 1, and one of `parts`.
  """
  table, index = [], 0
  for k, depth in enumerate(depths, 1):
    for i in range(1, depth + 1):
      layer, normed = (path.format(k, i, part) for part in parts)
      table += with_bias(rf'{prefix}{index}', layer, convolution)
      table += norm(rf'{prefix}{index + 1}', normed)
      index += 3
    index += k <= poolings
  return table


def _head(prefix: str) -> list[Rule]:
  return with_bias(rf'{prefix}\.conv2d_list\.(\d)', r'head/branch\1', convolution)


def _deeplabv2_resnet() -> list[Rule]:
  return resnet(r'model\.') + _head(r'model\.layer5')


def _deeplabv2_vgg() -> list[Rule]:
  table = vgg(r'features\.', poolings=3) + _head('classifier')
  for index, name in ((42, 'fc6'), (44, 'fc7')):
    table += with_bias(rf'features\.{index}', name, convolution)
  return table


def _fcn8s_vgg() -> list[Rule]:
  table = vgg(r'block[123]\.')
  for i, index in ((1, 0), (2, 4)):
    table += with_bias(rf'vgg_head\.{index}', f'head_conv{i}', convolution)
    table += norm(rf'vgg_head\.{index + 1}', f'head_norm{i}')
  table += with_bias(r'vgg_head\.8', 'head', convolution)
  return table + with_bias(r'score_pool([34])', r'score\1', convolution)


TABLES = {
  'deeplabv2_resnet': _deeplabv2_resnet,
  'deeplabv2_vgg': _deeplabv2_vgg,
  'fcn8s_vgg': _fcn8s_vgg,
}
KNOWN = ('epoch', 'score')  # of a snapshot, where they are plain numbers
# A name that only one of the nets has, and whose length is the number of classes.
HEADS = {
  'deeplabv2_resnet': 'model.layer5.conv2d_list.0.bias',
  'deeplabv2_vgg': 'classifier.conv2d_list.0.bias',
  'fcn8s_vgg': 'vgg_head.8.bias',
}
# Variants of configs/sac_gta5.py.
VARIANTS = {'deeplabv2_resnet': 'resnet101', 'deeplabv2_vgg': 'vgg16', 'fcn8s_vgg': 'fcn8s'}


def to_variables(net: str, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net that the registry calls `net`. Raises UserError.

  The one gap allowed is batch norm's count of updates.
  """
  return convert(TABLES[net](), counted(weights), template)


class Snapshot(NamedTuple):
  """What a file of the authors holds; `teacher` and `prior` [C] are None before adaptation."""

  net: str  # as the registry calls it
  student: dict[str, np.ndarray]
  teacher: dict[str, np.ndarray] | None
  prior: np.ndarray | None
  epoch: int | None
  score: float | None

  @property
  def num_classes(self) -> int:
    return rows(self.student, HEADS[self.net])


def read(path: str | pathlib.Path) -> Snapshot:
  """The parts of a snapshot, of the whole file or of its `model` alone. Raises UserError.

  The optimizer's state is left: adaptation starts with a rate and momentum of its own. A teacher
  that the file calls uninitialised is none.
  """
  content = torch_file.read_saved(path, 'model', 'model')
  weights = tables.find(path, content, 'snapshot of DA-SAC')
  parts: dict[str, dict[str, np.ndarray]] = {'backbone': {}, 'slow_net': {}}
  alone: dict[str, np.ndarray] = {}
  for name, value in weights.items():
    part, _, rest = name.partition('.')
    parts.get(part, alone)[rest if part in parts else name] = value
  prior, started = alone.pop('running_conf', None), alone.pop('slow_init', np.ones(1))
  if alone:
    raise UserError(f'{path} is no snapshot of DA-SAC: no place for {", ".join(sorted(alone)[:5])}')
  net = next((net for net, name in HEADS.items() if name in parts['backbone']), '')
  if not net:
    raise UserError(f'{path} is no snapshot of DA-SAC: it has none of {", ".join(HEADS.values())}')
  ready = bool(parts['slow_net']) and bool(np.all(started))
  teacher = parts['slow_net'] if ready else None
  facts = content if isinstance(content, dict) and 'model' in content else {}
  prior = prior if ready else None
  epoch, score = (facts.get(k) if isinstance(facts.get(k), (int, float)) else None for k in KNOWN)
  return Snapshot(net, parts['backbone'], teacher, prior, epoch, score)


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The snapshot as a state of the config's method, and what is known of its data.

  A file without teacher leaves a teacher that the first step of adaptation replaces; of a method
  without teacher only the student is taken. Raises UserError.
  """
  snapshot = read(path)
  model = config.method.get('model', {}).get('name', '')
  if model != snapshot.net:
    trained = repr(model) if model else f'the nets of {config.method.name!r}'
    raise UserError(
      f'{path} holds {snapshot.net!r}, the config trains {trained}\n'
      f'  use --config configs/sac_gta5.py:{VARIANTS[snapshot.net]}'
    )
  state = first_state(config, snapshot.num_classes)
  template = state.net.variables
  with naming(path):
    state = with_net(state, to_variables(snapshot.net, snapshot.student, template))
    if hasattr(state, 'teacher') and snapshot.teacher is not None:
      teacher = to_variables(snapshot.net, snapshot.teacher, template)
      state = state.replace(teacher=state.teacher.replace(**teacher), initialised=np.bool_(True))
      if snapshot.prior is not None:
        state = state.replace(prior=np.asarray(snapshot.prior, np.float32))
  return state, {'num_classes': snapshot.num_classes}
