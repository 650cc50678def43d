"""Released weights of methods of ambiguous segmentation beside MoSE -> our states.

prob_unet   the port to PyTorch of the Probabilistic U-Net by S. Knegt
phiseg      UNet-Zoo's port of PHiSeg
ssn         the SSN ('GTR') that ATFM begins with
ccdm        CCDM, the average of its training
flow_matching  MedFM, its average where the file has one
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from car_jax import registry
from car_jax.errors import UserError, naming
from car_jax.importers import atfm, guided, rules, tables, three_conv
from car_jax.importers.rules import Rule, Weights, convolution, point, with_bias
from car_jax.importers.segmenters import count, first_state, with_net
from car_jax.init_from import init_from


def _prob_unet(weights: Weights) -> list[Rule]:
  levels = count(weights, r'unet\.contracting_path\.(\d+)\..*')
  table = three_conv.unet('unet', levels, norms=False)
  for net in ('prior', 'posterior'):
    for k in range(levels):  # three convolutions and their ReLUs, then the next pooling
      theirs = rf'{net}\.encoder\.layers'
      table += three_conv.block(theirs, f'{net}_down{k}', 7 * k, norms=False)
    table += with_bias(rf'{net}\.conv_layer', net, point)
  hidden = (count(weights, r'fcomb\.layers\.(\d+)\.weight') + 1) // 2
  for k in range(hidden):
    table += with_bias(rf'fcomb\.layers\.{2 * k}', f'combine{k}', point)
  return table + with_bias(r'fcomb\.last_layer', f'combine{hidden}', point)


def _phiseg(weights: Weights) -> list[Rule]:
  widths = count(weights, r'prior\.contracting_path\.(\d+)\..*')
  levels, table = _phiseg_levels(weights), []
  for net in ('prior', 'posterior'):
    for k in range(widths):
      theirs = rf'{net}\.contracting_path\.{k}\.layers'
      table += three_conv.units(theirs, f'{net}/down{k}', int(k > 0), depth=3)
    for j in range(levels):  # counted from the coarsest
      i, latent = levels - 1 - j, rf'{net}\.sample_z_path\.{j}'
      table += three_conv.units(rf'{latent}\.conv', f'{net}/mix{i}', depth=2)
      table += with_bias(rf'{latent}\.mu_conv\.0', f'{net}/mean{i}', convolution)
      table += with_bias(rf'{latent}\.sigma_conv\.0', f'{net}/deviation{i}', convolution)
      if i:
        theirs = rf'{net}\.upsampling_path\.{j}\.upconv_layer'
        table += three_conv.units(theirs, f'{net}/up{i - 1}', depth=2)
  for j in range(levels):
    i, ours, theirs = levels - 1 - j, 'likelihood', r'likelihood\.'
    table += three_conv.units(
      rf'{theirs}likelihood_ups_path\.{j}\.convolution', f'{ours}/level{i}', depth=2
    )
    for k in range(widths - levels):  # each after its enlargement
      path = rf'{theirs}likelihood_post_ups_path\.{j}\.{2 * k + 1}\.convolution'
      table += three_conv.units(path, f'{ours}/level{i}_up{k}', depth=1)
    if j < levels - 1:  # counted from the finest
      path = rf'{theirs}likelihood_post_c_path\.{j}\.convolution'
      table += three_conv.units(path, f'{ours}/merge{j}', depth=2)
    path = rf'{theirs}s_layer\.{j}\.convolution\.0\.convolution\.0'
    table += with_bias(path, f'{ours}/out{i}', convolution)
  return table


def _phiseg_levels(weights: Weights) -> int:
  return count(weights, r'prior\.sample_z_path\.(\d+)\..*')


def _phiseg_unused(weights: Weights) -> tuple[str, ...]:
  """A block of each latent net that the port makes and never runs."""
  return (rf'(prior|posterior)\.upsampling_path\.{_phiseg_levels(weights) - 1}\..*',)


HEADS = ('mean_l', 'log_cov_diag_l', 'cov_factor_l')


def _ssn(weights: Weights) -> list[Rule]:
  levels = count(weights, r'unet\.contracting_path\.(\d+)\..*')
  return three_conv.unet('unet', levels, norms=False, before=1) + with_bias('heads', 'out', point)


def _with_one_head(weights: Weights) -> dict[str, np.ndarray]:
  """The three layers of one pixel, one after the other, as a layer."""
  rest = dict(weights)
  for leaf in ('weight', 'bias'):
    parts = [f'{head}.{leaf}' for head in HEADS]
    if lost := [part for part in parts if part not in rest]:
      raise UserError(f'{lost[0]} is not in the file')
    shapes = [np.shape(rest[part]) for part in parts]
    if len({shape[1:] for shape in shapes}) > 1 or not all(shapes):
      raise UserError(f'{", ".join(parts)} do not go together: {", ".join(map(str, shapes))}')
    rest[f'heads.{leaf}'] = np.concatenate([rest.pop(part) for part in parts])
  return rest


def _averaged(weights: Weights) -> dict[str, np.ndarray]:
  """Of a net in a wrapper that averages its parameters, in their order: these averages."""
  inner = [n for n in weights if n.startswith('model.')]
  average = [weights.get(f'shadow_params.{k}') for k in range(len(inner))]
  if not inner or any(a is None for a in average):
    return dict(weights)
  rest = {n: w for n, w in weights.items() if n not in inner and n != 'num_updates'}
  for k, name in enumerate(inner):
    rest[name.removeprefix('model.')] = rest.pop(f'shadow_params.{k}')
  return rest


class Format(NamedTuple):
  """A release: what it is of, the weight that it alone has, the one with a row for each class."""

  title: str
  mark: str
  classes: str
  table: Callable[[Weights], list[Rule]]
  prepared: Callable[[Weights], Weights] = lambda weights: weights
  unused: Callable[[Weights], Iterable[str]] = lambda weights: ()
  method: str = ''  # where it has another name than the format
  model: Mapping[str, Any] = {}  # options of the net that its weights have learnt with


FORMATS = {
  'prob_unet': Format(
    'Probabilistic U-Net', 'fcomb.last_layer.weight', 'fcomb.last_layer.weight', _prob_unet
  ),
  'phiseg': Format(
    'PHiSeg',
    'prior.sample_z_path.0.mu_conv.0.weight',
    'likelihood.s_layer.0.convolution.0.convolution.0.weight',
    _phiseg,
    unused=_phiseg_unused,
  ),
  'ssn': Format('SSN', 'mean_l.weight', 'mean_l.weight', _ssn, _with_one_head),
  'ccdm': Format('CCDM', 'time_embed.0.weight', 'out.2.weight', guided.unet),
  'atfm': Format(
    'ATFM',
    'final_conv.weight',
    'final_conv.weight',
    atfm.unet,
    method='flow_matching',
    model=dict(multiplied_kernels=True),
  ),
  'flow_matching': Format('MedFM', 'time_embed.0.weight', 'out.2.weight', guided.unet),
}


def to_variables(name: str, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict of a format, as arrays -> {'params', 'batch_stats'} of our net.

  Raises UserError naming everything left over on either side; see rules.convert.
  """
  form = FORMATS[name]
  weights = form.prepared(weights)
  made = rules.convert(form.table(weights), weights, template, form.unused(weights))
  return {'batch_stats': {}} | made


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The released file as a state of the config's method, and what is known of its data.

  Sets options of the config's net that the file's weights need. A single logit is of two classes.
  Raises UserError for another kind of file, and for weights that the config's net does not take.
  """
  name = config.method.name
  weights = _averaged(tables.read(path, 'checkpoint of ambiguous segmentation'))
  forms = {f.method or k: k for k, f in FORMATS.items() if f.mark in weights}
  if not forms:
    known = ', '.join(f'{f.title} ({f.mark})' for f in FORMATS.values())
    raise UserError(f'{path} has no weights of {known}')
  if name not in forms:
    titles = ' or '.join(FORMATS[form].title for form in forms.values())
    method, form = next(iter(forms.items()))
    raise UserError(
      f'{path} holds weights of {titles}, the config trains {name!r}\n'
      f'  use car-jax import {form}, or a --config that trains {method!r}'
    )
  form = forms[name]
  with config.unlocked():
    config.method.model.update(FORMATS[form].model)
  logits = rules.rows(weights, last := FORMATS[form].classes)
  shape = np.shape(weights.get(last, 0))
  if not logits or len(shape) != 4:
    raise UserError(
      f'{path}: {last} has the shape {shape}; expected [classes, features, height, width]'
    )
  classes = 2 if logits == 1 else logits
  with naming(path):
    net = registry.method(config.method.to_dict(), num_classes=classes, steps_per_epoch=1).net
    state = first_state(config, classes, config.data.get('size') or net.multiple)
    variables = to_variables(form, weights, state.net.variables)
  state = init_from(state, config.init)  # what a release keeps in another file
  return with_net(state, variables), {'num_classes': classes}
