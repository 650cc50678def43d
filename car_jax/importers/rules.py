"""A table of names: foreign parameter -> our path and the layout change between them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from car_jax.errors import UserError

Weights = Mapping[str, np.ndarray]


def as_is(a: np.ndarray) -> np.ndarray:
  return a


def convolution(a: np.ndarray) -> np.ndarray:
  """[out, in, kh, kw] -> [kh, kw, in, out]"""
  return a.transpose(2, 3, 1, 0)


def transposed(a: np.ndarray) -> np.ndarray:
  """[in, out, kh, kw] -> [kh, kw, in, out]"""
  return a.transpose(2, 3, 0, 1)


def linear(a: np.ndarray) -> np.ndarray:
  """[out, in] -> [in, out]"""
  return a.T


def point(a: np.ndarray) -> np.ndarray:
  """[out, in, 1, 1] -> [in, out]"""
  return a[:, :, 0, 0].T


def dense(a: np.ndarray) -> np.ndarray:
  """[out, in] or [out, in, 1, 1] -> [in, out]"""
  return point(a) if np.ndim(a) == 4 else linear(a)


def rows(weights: Weights, name: str) -> int:
  """Length of a weight's first axis, such as its classes; 0 if there is no such weight.

  Raises UserError for more than 65,536: a net is not made on the word of a damaged file.
  """
  shape = np.shape(weights.get(name, 0))
  if not shape or 0 in shape:
    return 0
  if shape[0] > 2**16:
    raise UserError(f'{name} {shape} has more rows than any net here')
  return shape[0]


class Rule(NamedTuple):
  pattern: str  # of the whole foreign name
  path: str  # ours, with the pattern's groups; a leading @ means batch_stats
  layout: Any = as_is


def norm(pattern: str, path: str) -> list[Rule]:
  """The five rules of a torch batch norm."""
  leaves = {
    'weight': 'scale',
    'bias': 'bias',
    'running_mean': 'mean',
    'running_var': 'var',
    'num_batches_tracked': 'count',
  }
  return [
    Rule(rf'{pattern}\.{theirs}', f'{"" if ours in ("scale", "bias") else "@"}{path}/{ours}')
    for theirs, ours in leaves.items()
  ]


def layer_norm(pattern: str, path: str) -> list[Rule]:
  return [Rule(rf'{pattern}\.weight', f'{path}/scale'), Rule(rf'{pattern}\.bias', f'{path}/bias')]


def with_bias(pattern: str, path: str, layout: Any, kernel: str = 'kernel') -> list[Rule]:
  """A weight and its bias."""
  return [
    Rule(rf'{pattern}\.weight', f'{path}/{kernel}', layout),
    Rule(rf'{pattern}\.bias', f'{path}/bias'),
  ]


def counted(weights: Weights) -> dict[str, np.ndarray]:
  """With the norms' counts of updates, where an old file lacks them: nothing here reads them."""
  counts = {re.sub('running_var$', 'num_batches_tracked', n) for n in weights if 'running_var' in n}
  return {n: np.zeros((), np.int64) for n in counts} | dict(weights)


def separate(weights: Weights) -> dict[str, np.ndarray]:
  """With the joint projection of torch's MultiheadAttention, or Swin's or ViT's, as three."""
  parts = {}
  for name, value in weights.items():
    match = re.fullmatch(
      r'(.*(?:attn|w_msa|self_attention))\.(?:in_proj_|qkv\.)(weight|bias)', name
    )
    if match and np.ndim(value) and len(value) % 3 == 0:
      for one, part in zip(('query', 'key', 'value'), np.split(value, 3), strict=True):
        parts[f'{match[1]}.{one}.{match[2]}'] = part
    else:
      parts[name] = value
  return parts


def convert(
  table: Iterable[Rule],
  weights: Weights,
  template: Any = None,
  ignore: Iterable[str] = (),
) -> dict[str, Any]:
  """Foreign names -> {'params': ..., 'batch_stats': ...}, both sides used up.

  Several names with one path (shared weights under aliases) must hold equal values. With a
  `template` of our variables, shapes must agree and nothing may be missing. Raises UserError that
  lists everything wrong at once.
  """
  table, wrong = list(table), []
  flat: dict[str, np.ndarray] = {}
  for name, value in weights.items():
    if any(re.fullmatch(p, name) for p in ignore):
      continue
    rule = next((r for r in table if re.fullmatch(r.pattern, name)), None)
    if rule is None:
      wrong.append(f'{name} {tuple(value.shape)}: no place for it')
      continue
    path = re.sub(rule.pattern, rule.path, name)
    path = f'batch_stats/{path[1:]}' if path.startswith('@') else f'params/{path}'
    try:
      value = rule.layout(np.asarray(value))
    except (ValueError, IndexError):
      wrong.append(f'{name} {tuple(value.shape)}: its axes are not those of {path}')
      continue
    value = value.astype(np.int32 if path.endswith('/count') else np.float32, copy=False)
    if lost := np.count_nonzero(~np.isfinite(value)):
      wrong.append(f'{name} {tuple(value.shape)}: {lost:,} of its numbers are not finite')
    if path in flat and not np.array_equal(flat[path], value):
      wrong.append(f'{name}: differs from another name of the same shared weight')
    flat[path] = flat.get(path, value)
  wrong += _compare(flat, template) if template is not None else []
  if wrong:
    shown = '\n'.join(f'  {w}' for w in wrong[:20])
    more = f'\n  and {len(wrong) - 20} more' if len(wrong) > 20 else ''
    raise UserError(f'{len(wrong)} weights do not fit:\n{shown}{more}')
  return unflatten_dict(flat, sep='/')


def _compare(flat: Weights, template: Any) -> list[str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(template)
  want = {'/'.join(p.key for p in path): tuple(leaf.shape) for path, leaf in leaves}
  wrong = [f'{path} {shape}: not in the file' for path, shape in want.items() if path not in flat]
  for path, value in flat.items():
    if path not in want:
      wrong.append(f'{path} {value.shape}: not in the network')
    elif want[path] != value.shape:
      wrong.append(f'{path}: {value.shape} in the file, {want[path]} in the network')
  return wrong


def resnet(prefix: str = '') -> list[Rule]:
  """torchvision's names of a ResNet's parts, after `prefix`, -> `backbone` of our nets."""
  block, ours = rf'{prefix}layer([1-4])\.(\d+)\.', r'backbone/stage\1_block\2'
  table = [Rule(rf'{prefix}conv1\.weight', 'backbone/stem_conv/kernel', convolution)]
  table += norm(rf'{prefix}bn1', 'backbone/stem_norm')
  table.append(Rule(rf'{block}conv(\d)\.weight', rf'{ours}/conv\3/kernel', convolution))
  table += norm(rf'{block}bn(\d)', rf'{ours}/norm\3')
  table.append(Rule(rf'{block}downsample\.0\.weight', f'{ours}/conv_skip/kernel', convolution))
  return table + norm(rf'{block}downsample\.1', f'{ours}/norm_skip')
