"""SegFormers with linear projections under other names: NVlabs' own, transformers' newer ones.

Both become transformers' names on disk, which `huggingface` reads.
"""

import re

import numpy as np

from car_jax.importers.rules import Weights

ENCODER = 'segformer.encoder.'
HEADLESS = r'decode_head\.conv_seg\..*'  # of NVlabs: a layer of its base class, never called
NVLABS_LEAVES = {
  **{'norm1': 'layer_norm_1', 'norm2': 'layer_norm_2', 'attn.q': 'attention.self.query'},
  **{'attn.key': 'attention.self.key', 'attn.value': 'attention.self.value'},
  **{'attn.proj': 'attention.output.dense', 'attn.sr': 'attention.self.sr'},
  **{'attn.norm': 'attention.self.layer_norm', 'mlp.fc1': 'mlp.dense1', 'mlp.fc2': 'mlp.dense2'},
}
NEWER_LEAVES = {
  **{'layernorm_before': 'layer_norm_1', 'layernorm_after': 'layer_norm_2'},
  **{'attention.q_proj': 'attention.self.query', 'attention.k_proj': 'attention.self.key'},
  **{'attention.v_proj': 'attention.self.value', 'attention.o_proj': 'attention.output.dense'},
  'attention.sequence_reduction.sequence_reduction': 'attention.self.sr',
  'attention.sequence_reduction.layer_norm': 'attention.self.layer_norm',
  **{'mlp.fc1': 'mlp.dense1', 'mlp.fc2': 'mlp.dense2'},
}
NVLABS_HEAD = {
  **{'linear_fuse.conv': 'linear_fuse', 'linear_fuse.bn': 'batch_norm'},
  'linear_pred': 'classifier',
}


def is_nvlabs(weights: Weights) -> bool:
  return {'backbone.patch_embed1.proj.weight', 'decode_head.linear_pred.weight'} <= set(weights)


def from_nvlabs(weights: Weights) -> dict[str, np.ndarray]:
  """Of NVlabs' SegFormer, whose keys and values [2 D, D] are one projection."""
  renamed = {}
  for name, value in weights.items():
    if re.fullmatch(HEADLESS, name):
      continue
    joint = re.fullmatch(r'(.*\.attn)\.kv\.(weight|bias)', name)
    if joint and np.ndim(value) and len(value) % 2 == 0:
      for part, half in zip(('key', 'value'), np.split(value, 2), strict=True):
        renamed[_nvlabs(f'{joint[1]}.{part}.{joint[2]}')] = half
    else:
      renamed[_nvlabs(name)] = value
  return renamed


def _nvlabs(name: str) -> str:
  name, _, kind = name.rpartition('.')
  if match := re.fullmatch(r'backbone\.patch_embed([1-4])\.(proj|norm)', name):
    leaf = 'proj' if match[2] == 'proj' else 'layer_norm'
    name = f'{ENCODER}patch_embeddings.{int(match[1]) - 1}.{leaf}'
  elif match := re.fullmatch(r'backbone\.norm([1-4])', name):
    name = f'{ENCODER}layer_norm.{int(match[1]) - 1}'
  elif match := re.fullmatch(r'backbone\.block([1-4])\.(\d+)\.(.*)', name):
    leaf = NVLABS_LEAVES.get(match[3], match[3])
    name = f'{ENCODER}block.{int(match[1]) - 1}.{match[2]}.{leaf}'
  elif match := re.fullmatch(r'decode_head\.linear_c([1-4])\.proj', name):
    name = f'decode_head.linear_c.{int(match[1]) - 1}.proj'
  elif name.startswith('decode_head.'):
    leaf = name.removeprefix('decode_head.')
    name = f'decode_head.{NVLABS_HEAD.get(leaf, leaf)}'
  return f'{name}.{kind}'


def from_newer(weights: Weights) -> dict[str, np.ndarray]:
  """Of transformers' modules since version 5, as `model.state_dict()` gives them; others as is."""
  return {_newer(name): value for name, value in weights.items()}


def _newer(name: str) -> str:
  name, _, kind = name.rpartition('.')
  if match := re.fullmatch(r'(segformer\.)?stages\.(\d)\.patch_embeddings\.(.*)', name):
    name = f'{match[1] or ""}encoder.patch_embeddings.{match[2]}.{match[3]}'
  elif match := re.fullmatch(r'(segformer\.)?stages\.(\d)\.layer_norm', name):
    name = f'{match[1] or ""}encoder.layer_norm.{match[2]}'
  elif match := re.fullmatch(r'(segformer\.)?stages\.(\d)\.blocks\.(\d+)\.(.*)', name):
    leaf = NEWER_LEAVES.get(match[4], match[4])
    name = f'{match[1] or ""}encoder.block.{match[2]}.{match[3]}.{leaf}'
  elif match := re.fullmatch(r'decode_head\.linear_projections\.(\d)\.proj', name):
    name = f'decode_head.linear_c.{match[1]}.proj'
  return f'{name}.{kind}' if name else kind
