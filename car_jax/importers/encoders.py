"""ImageNet's weights for the backbone of a net still to be trained; its other parts as they start.

The checkpoint made of a file is where a run starts: `config.init.net = 'DIR:net'`, for CAR
`config.init.calnet`. A library lists how it calls the weights of each kind of backbone: `Names`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from car_jax import lookup, registry
from car_jax.errors import UserError, naming
from car_jax.importers import prefixes
from car_jax.importers.rules import Rule, Weights, convert, counted, separate
from car_jax.importers.segmenters import first_state, with_net
from car_jax.nn.composed import Composition
from car_jax.nn.resnet import ResNetSegmenter
from car_jax.nn.segnet import SegNetCalNet
from car_jax.nn.vgg import VGGSegmenter

# Kind of backbone -> its parameters' paths that a classifier of ImageNet has too. Norms of the maps
# that segmenters read are not among them.
INSIDE = {
  'convnext': r'backbone/stage\d+_(embed|embed_norm|block\d+)/.*',
  'mit': r'backbone/.*',
  'resnet': r'backbone/(stem_conv|stem_norm|stage\d+_block\d+)\d?/.*',
  'resnetv2': r'backbone/.*',
  'swin': r'backbone/(embed|embed_norm|stage\d+_(merge|merge_norm|block\d+))/.*',
  'vgg': r'(backbone|enc\d_conv\d)/.*',
  'vit': r'backbone/.*',
}


class Names(NamedTuple):
  """How a library calls the weights of one kind of backbone.

  part: the backbone, as lookup.py calls it. sign: a pattern of a name that only such files have.
  rules: of the backbone and the file's weights. unused: patterns of what a classifier alone has, or
  some segmenters.
  """

  part: str
  sign: str
  rules: Callable[[Any, Weights], list[Rule]]
  unused: tuple[str, ...]


def find(names: Iterable[Names], weights: Weights) -> Names | None:
  """Of the kind of backbone that the weights are an encoder of."""
  signed = lambda sign: any(re.fullmatch(sign, name) for name in weights)
  return next((n for n in names if signed(n.sign)), None)


@dataclasses.dataclass(frozen=True)
class Encoder:
  """A file of an encoder alone, of some library."""

  path: Any
  weights: Weights
  names: Names
  library: str

  described = False  # of its net, and of how images are prepared

  def config(self) -> ConfigDict:
    """Raises UserError: there are several nets that it may be a part of."""
    raise UserError(
      f'{self.path} is an encoder alone ({self.names.part}) in the names of {self.library}\n'
      f'  it is a start for training: name a config whose net has that backbone, --config CONFIG'
    )

  def check(self, config: ConfigDict) -> None:
    """Nothing is known of it beside its weights."""

  def state(self, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The config's first state, its net's backbone from the file, and what is known of its data.

    The config's data say how many classes there are, so they must be prepared. Raises UserError.
    """
    name = config.method.get('model', {}).get('name', '')
    if not name:
      raise UserError(
        f'the method {config.method.name!r} has several nets; use the config of the method '
        "'supervised' with the net to start from, then config.init to take it over"
      )
    from car_jax.data import opening

    classes = opening.open_dataset(config.data).info.num_classes
    state = first_state(config, classes)
    net = registry.net(config.method.model.to_dict(), num_classes=classes)
    with naming(self.path):
      variables = to_variables(net, self.names, self.weights, state.net.variables)
    return with_net(state, variables), {'num_classes': classes}


def opened(path: Any, weights: Weights, names: Iterable[Names], library: str) -> Encoder:
  """Raises UserError for weights of no kind of backbone."""
  kind = find(names, weights)
  if kind is None:
    kinds = ', '.join(n.part for n in names)
    raise UserError(
      f'{path} is no encoder in the names of {library}: {prefixes.described(weights)}\n'
      f'  encoders that are read: {kinds}'
    )
  return Encoder(path, weights, kind, library)


def backbone_of(net: Any) -> tuple[str, Any]:
  """The kind of a net's backbone, and it itself; '' where no library publishes one like it."""
  if isinstance(net, (SegNetCalNet, VGGSegmenter)):
    return 'vgg', net
  if isinstance(net, ResNetSegmenter):
    return 'resnet', net.resnet()
  if isinstance(net, Composition):
    backbone = net.parts()[0]
    for kind in INSIDE:  # some backbones are a ResNet and more
      if kind in lookup.BACKBONES and isinstance(backbone, lookup.find('backbone', kind)):
        return kind, backbone
  return '', None


def to_variables(
  net: Any, names: Names, weights: Weights, template: Mapping[str, Any]
) -> dict[str, Any]:
  """`template`, variables of the net, with the file's encoder.

  All of the encoder must be in the file; of the file, only its classifier is left out. Raises
  UserError.
  """
  kind, backbone = backbone_of(net)
  if kind != names.part:
    what = f'is a {kind}' if kind else 'is none of those'
    raise UserError(
      f'the file holds a {names.part}, the encoder of {type(net).__name__} {what}\n'
      '  give a config whose net has that backbone'
    )
  flat = flatten_dict(template, sep='/')
  inside = {p for p in flat if re.fullmatch(INSIDE[kind], p.partition('/')[2])}
  encoder = unflatten_dict({p: flat[p] for p in inside}, sep='/')
  table, weights = names.rules(backbone, weights), separate(counted(weights))
  placed = lambda name: any(re.fullmatch(rule.pattern, name) for rule in table)
  unused = lambda name: any(re.fullmatch(pattern, name) for pattern in names.unused)
  used = {n: w for n, w in weights.items() if placed(n) or not unused(n)}
  translated = convert(table, used, encoder)
  return unflatten_dict(flat | flatten_dict(translated, sep='/'), sep='/')
