"""What trainers put before the names of a model's weights, and what a file is that has no place."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from car_jax.importers.rules import Weights

AVERAGE = 'ema_model.'  # DAFormer, HRDA and MIC: the teacher, an average of the student `model.`
BESIDE = ('model.', 'imnet_model.')  # left where the average is taken: student, ImageNet's features


def unwrapped(path: Any, weights: Weights) -> dict[str, np.ndarray]:
  """Names without `module.` and `model.`; of several models in one file the average, said so."""
  names = {name: name for name in weights}  # as they become -> as they are in the file
  while True:
    before = list(names)
    names = {new.removeprefix('module.'): old for new, old in names.items()}
    if any(name.startswith(AVERAGE) for name in names):
      names = _average(path, names)
    others = {new: old for new, old in names.items() if not new.startswith('imnet_model.')}
    if others and all(name.startswith('model.') for name in others):
      names = {new.removeprefix('model.'): old for new, old in others.items()}
    if list(names) == before:
      return {new: weights[old] for new, old in names.items()}


def _average(path: Any, names: Mapping[str, str]) -> dict[str, str]:
  left = {p: sum(name.startswith(p) for name in names) for p in BESIDE}
  rest = ', '.join(f'{n} weights under {p}' for p, n in left.items() if n)
  print(f"{path}: those under {AVERAGE} are taken (the teacher's)" + (rest and f'; left: {rest}'))
  kept = {new: old for new, old in names.items() if not new.startswith(BESIDE)}
  return {new.removeprefix(AVERAGE): old for new, old in kept.items()}


WHOLE = 'give the file of a whole segmenter: an encoder alone has nothing to score'
STARTS = '`car-jax import {} FILE --config CONFIG` starts an encoder from it'
OWN = (
  '  an architecture of your own cannot be imported: save its softmax as files, and car-jax score '
  'scores them'
)
OF_MMSEG = (
  'a segmenter of mmsegmentation',
  '`car-jax import mmseg FILE` reads it, where it has its backbone too',
)
# A name -> what a file is that has it, what to do
KINDS = {
  'segformer.encoder.patch_embeddings.0.proj.weight': (
    'a SegFormer encoder in the names of transformers',
    '`car-jax import huggingface FILE` reads it',
  ),
  'segformer.stages.0.patch_embeddings.proj.weight': (
    'a SegFormer encoder in the names of transformers',
    '`car-jax import huggingface FILE` reads it',
  ),
  'decode_head.embed_layers.0.proj.weight': (
    "a segmenter with DAFormer's head, which no net here has",
    'give a SegFormer or DeepLabV3+; its logits as files are scored by car-jax eval --predictions',
  ),
  'decode_head.conv_seg.weight': OF_MMSEG,
  'decode_head.mask_norm.weight': OF_MMSEG,
  'backbone.patch_embed1.proj.weight': ("an encoder in the names of NVlabs' SegFormer", WHOLE),
  'backbone.layers.0.0.projection.weight': ('a mmsegmentation MixVisionTransformer', WHOLE),
  'patch_embed1.proj.weight': ("an encoder alone (MiT) in the names of NVlabs' SegFormer", WHOLE),
  'layers.0.0.projection.weight': ('an encoder alone (MiT) in the names of mmsegmentation', WHOLE),
  'encoder.patch_embeddings.0.proj.weight': (
    'an encoder alone (MiT) in the names of transformers',
    STARTS.format('huggingface'),
  ),
  'stages.0.patch_embeddings.proj.weight': (
    'an encoder alone (MiT) in the names of transformers',
    STARTS.format('huggingface'),
  ),
  'stem.0.weight': ('an encoder alone (ResNet) in the names of mmsegmentation', WHOLE),
  'sem_seg_head.predictor.class_embed.weight': (
    'a MaskFormer or Mask2Former of detectron2',
    '`car-jax import detectron2 FILE` reads it',
  ),
  'layer1.0.conv1.weight': (
    'a ResNet in the names of torchvision and timm',
    STARTS.format('torchvision'),
  ),
}


def described(weights: Weights) -> str:
  """What the file is, for a message: `it is ...` and how to proceed, or its first names."""
  for name, (what, mend) in KINDS.items():
    if name in weights:
      headed = any(n.startswith(('decode_head.', 'sem_seg_head.')) for n in weights)
      head = '' if headed else ', without decode_head'
      return f'it is {what}{"" if "alone" in what else head}\n  {mend}'
  return f'its names begin with {", ".join(sorted(weights)[:3])}\n{OWN}'
