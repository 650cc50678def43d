"""Backbones of transformers: what their configs say, and their weights, in 4.x and 5.x.

Letters: k a stage, counted from 0.
"""

from typing import Any

from car_jax.importers import families
from car_jax.importers.encoders import Names
from car_jax.importers.rules import Rule, Weights, convolution, norm
from car_jax.importers.settings import Settings
from car_jax.importers.transformers import mit
from car_jax.nn.convnext import ConvNeXt
from car_jax.nn.resnet import ResNet

words = str.split
STAGES = ('stage1', 'stage2', 'stage3', 'stage4')
# What the config of any model of transformers may have, and segmenters do not read.
GENERAL = words("""
_name_or_path add_cross_attention architectures bad_words_ids begin_suppress_tokens bos_token_id
chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty
do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label
init_std init_xavier_std initializer_range is_decoder is_encoder_decoder label2id length_penalty
max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams num_labels
num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix
problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript transformers_version
typical_p use_bfloat16 use_cache
""")
# Of a model with a backbone: where transformers would get one.
SOURCE = words('backbone use_pretrained_backbone use_timm_backbone backbone_kwargs')
# Of Swin and ViT. Swin's tables and norms of maps are also called otherwise by MaskFormer's own.
PROJECTIONS = {
  'query': r'attention\.(?:attention\.query|self\.query|q_proj)',
  'key': r'attention\.(?:attention\.key|self\.key|k_proj)',
  'value': r'attention\.(?:attention\.value|self\.value|v_proj)',
  'out': r'attention\.(?:output\.dense|o_proj)',
  'norm1': 'layernorm_before',
  'norm2': 'layernorm_after',
  'expand': r'(?:mlp\.fc1|intermediate\.dense)',
  'contract': r'(?:mlp\.fc2|output\.dense)',
}


def entry(of: Settings, *kinds: str) -> dict[str, Any]:
  """`backbone_config` -> our entry. Raises UserError for what no net here has."""
  of.passed(*GENERAL, 'stage_names')
  of.only('num_channels', 3)
  of.only('in_channels', 3)
  of.only('out_features', STAGES, None)
  of.only('out_indices', (1, 2, 3, 4), None)
  of.only('pruned_heads', {}, None)
  of.only('model_type', *kinds)
  made = {'resnet': _resnet, 'convnext': _convnext}.get(of('model_type'), _swin)(of)
  of.finish()
  return made


def rules(prefix: str, backbone: Any) -> list[Rule]:
  """Those of a segmenter's backbone, whose norms of maps are named alike."""
  if isinstance(backbone, ResNet):
    return resnet_rules(prefix, backbone)
  table = convnext_rules if isinstance(backbone, ConvNeXt) else swin_rules
  norm = lambda k: rf'{prefix}hidden_states_norms\.(?:stage{k + 1}|{k})'
  return table(prefix, backbone) + families.stage_norms(backbone, norm)


def _resnet(of: Settings) -> dict[str, Any]:
  basic = of('layer_type', 'bottleneck') == 'basic'
  of.only('layer_type', 'bottleneck', 'basic')
  of.only('hidden_act', 'relu')
  blocks, widths = of('depths', (3, 4, 6, 3)), of('hidden_sizes', (256, 512, 1024, 2048))
  of.only('hidden_sizes', tuple(widths[0] * 2**k for k in range(len(blocks))))
  width = widths[0] if basic else widths[0] // 4
  entry = dict(name='resnet', depth=18 if basic else 50, stem_channels=of('embedding_size', 64))
  entry |= dict(width=width, blocks=blocks, dilations=(1,) * len(blocks))
  strides = 2 if of('downsample_in_first_stage', False) else 1, *(2,) * (len(blocks) - 1)
  return entry | dict(strides=strides, stride_first=of('downsample_in_bottleneck', False))


def resnet_rules(prefix: str, backbone: Any) -> list[Rule]:
  def normed(theirs, convolved, normalised):
    kernel = Rule(rf'{theirs}\.convolution\.weight', f'{convolved}/kernel', convolution)
    return [kernel, *norm(rf'{theirs}\.normalization', normalised)]

  stem = 'backbone/stem'
  table = normed(rf'{prefix}embedder\.embedder', f'{stem}_conv', f'{stem}_norm')
  for k in range(4):
    theirs = rf'{prefix}encoder\.stages\.{k}\.layers\.(\d+)'
    ours = rf'backbone/stage{k + 1}_block\1'
    for i in range(3):
      table += normed(rf'{theirs}\.layer\.{i}', f'{ours}/conv{i + 1}', f'{ours}/norm{i + 1}')
    table += normed(rf'{theirs}\.shortcut', f'{ours}/conv_skip', f'{ours}/norm_skip')
  return table


def _swin(of: Settings) -> dict[str, Any]:
  depths = of('depths', (2, 2, 6, 2))
  of.only('hidden_act', 'gelu')
  of.only('use_absolute_embeddings', False)
  of.only('layer_norm_eps', 1e-5)  # merging's norms and the last ones have 1e-5 in any case
  of.only('hidden_dropout_prob', 0.0)
  of.only('attention_probs_dropout_prob', 0.0)
  of.passed('image_size', 'encoder_stride', 'hidden_size', 'num_layers', 'path_norm')
  entry = dict(name='swin', width=of('embed_dim', 96), depths=depths, patch=of('patch_size', 4))
  entry |= dict(heads=of('num_heads', (3, 6, 12, 24)), window=of('window_size', 7))
  entry |= dict(expansion=float(of('mlp_ratio', 4.0)), qkv_bias=of('qkv_bias', True))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.1)))


def swin_rules(prefix: str, backbone: Any) -> list[Rule]:
  inner = rf'{prefix}(?:swin\.|model\.)?'
  return families.swin(
    backbone,
    {
      **PROJECTIONS,
      'position_bias': r'attention\.(?:self|relative_position_bias)\.relative_position_bias_table',
    },
    patches=rf'{inner}embeddings\.patch_embeddings\.projection',
    patches_norm=rf'{inner}embeddings\.norm',
    block=lambda k: rf'{inner}encoder\.layers\.{k}\.blocks\.(\d+)',
    merge=lambda k: rf'{inner}encoder\.layers\.{k}\.downsample',
  )


def _convnext(of: Settings) -> dict[str, Any]:
  depths = of('depths', (3, 3, 9, 3))
  of.only('hidden_act', 'gelu')
  of.only('num_stages', len(depths))
  of.passed('layer_norm_eps', 'image_size')  # the epsilon of a norm that no map passes
  entry = dict(name='convnext', widths=of('hidden_sizes', (96, 192, 384, 768)), depths=depths)
  entry |= dict(patch=of('patch_size', 4), epsilon=1e-6, shrink_epsilon=1e-6)
  entry |= dict(layer_scale=float(of('layer_scale_init_value', 1e-6)))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.0)))


def convnext_rules(prefix: str, backbone: Any) -> list[Rule]:
  def entering(k: int, place: int) -> str:
    if k == 0:
      return rf'{prefix}embeddings\.{("patch_embeddings", "layernorm")[place]}'
    return rf'{prefix}encoder\.stages\.{k}\.downsampling_layer\.{1 - place}'

  return families.convnext(
    backbone,
    {
      'depthwise': 'dwconv',
      'norm': 'layernorm',
      'scale': 'layer_scale_parameter',
      'expand': 'pwconv1',
      'contract': 'pwconv2',
    },
    embed=lambda k: entering(k, 0),
    embed_norm=lambda k: entering(k, 1),
    block=lambda k: rf'{prefix}encoder\.stages\.{k}\.layers\.(\d+)',
  )


def _vit_rules(backbone: Any, weights: Weights) -> list[Rule]:
  inner = r'(?:vit\.)?'
  return families.vit(
    backbone,
    PROJECTIONS,
    patches=rf'{inner}embeddings\.patch_embeddings\.projection',
    class_token=rf'{inner}embeddings\.cls_token',
    positions=rf'{inner}embeddings\.position_embeddings',
    last_norm=rf'{inner}layernorm',
    block=rf'{inner}(?:encoder\.layer|layers)\.(\d+)',
  )


# ImageNet's classes, and the last norm, which is none of a map's of all but ViT.
CLASSIFIER = (r'classifier\..*', r'(\w+\.)?(layernorm|pooler)\..*')
NAMES = (
  Names(
    'mit',
    r'(segformer\.)?(encoder\.patch_embeddings\.0|stages\.0\.patch_embeddings)\.proj\.weight',
    lambda *_: mit.rules(),
    CLASSIFIER,
  ),
  Names(
    'swin',
    r'(swin\.)?encoder\.layers\.0\.blocks\.0\..*',
    lambda backbone, _: swin_rules('', backbone),
    (*CLASSIFIER, r'.*\.relative_position_index'),
  ),
  Names(
    'convnext',
    r'(convnext\.)?embeddings\.patch_embeddings\.weight',
    lambda backbone, _: convnext_rules(r'(?:convnext\.)?', backbone),
    CLASSIFIER,
  ),
  Names('vit', r'(vit\.)?embeddings\.cls_token', _vit_rules, CLASSIFIER),
  Names(
    'resnet',
    r'(resnet\.)?embedder\.embedder\.convolution\.weight',
    lambda backbone, _: resnet_rules(r'(?:resnet\.)?', backbone),
    CLASSIFIER,
  ),
)
