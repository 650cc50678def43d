"""Mask2Former and MaskFormer as Hugging Face's transformers saves them, in 4.x and 5.x.

config.json says what the net is.
"""

from collections.abc import Mapping
from typing import Any

from car_jax import lookup
from car_jax.errors import UserError
from car_jax.importers.openmmlab.model import separate
from car_jax.importers.openmmlab.translation import Settings
from car_jax.importers.rules import (
  Rule,
  Weights,
  convert,
  convolution,
  layer_norm,
  linear,
  norm,
  point,
  with_bias,
)
from car_jax.nn.composed import Composition
from car_jax.nn.resnet import ResNet
from car_jax.nn.swin import SwinTransformer

words = str.split
STAGES = ('stage1', 'stage2', 'stage3', 'stage4')
ENCODER = r'model\.pixel_level_module\.encoder\.'
PIXELS = r'model\.pixel_level_module\.decoder\.'
DECODER = r'model\.transformer_module\.'
# The loss' weights of classes; Swin's last norm, which no map passes; what follows from windows.
UNUSED = (
  r'criterion\.empty_weight',
  rf'{ENCODER}(swin\.|model\.)?layernorm\.(weight|bias)',
  r'.*\.relative_position_index',
)
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
# What training alone reads, of both.
TRAINING = words("""
class_weight cross_entropy_weight dice_weight ignore_value importance_sample_ratio mask_weight
no_object_weight output_auxiliary_logits oversample_ratio train_num_points use_auxiliary_loss
""")
# What DETR's config has beyond its decoder, of which alone MaskFormer is made.
DETR = words("""
auxiliary_loss backbone backbone_config backbone_kwargs bbox_cost bbox_loss_coefficient class_cost
classifier_dropout dice_loss_coefficient dilation encoder_attention_heads encoder_ffn_dim
encoder_layerdrop encoder_layers eos_coefficient giou_cost giou_loss_coefficient
mask_loss_coefficient max_position_embeddings num_channels num_hidden_layers position_embedding_type
scale_embedding use_pretrained_backbone use_timm_backbone
""")


def spec(config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
  """A config.json -> our net, as config.method.model has it; its class count.

  Raises UserError for what no net here has.
  """
  of = Settings(config, 'config')
  kind = of('model_type')
  if kind not in HEADS:
    raise UserError(f'its config has model_type = {kind!r}\n  what can be read: {", ".join(HEADS)}')
  of.passed(*GENERAL, *TRAINING, 'num_hidden_layers', 'num_attention_heads')
  given = of.part('backbone_config')
  backbone = _backbone(given)
  given.finish()
  head = HEADS[kind][0](of)
  of.finish()
  classes = len(config.get('id2label') or (0, 1))  # two are not written down
  return dict(name='composed', backbone=backbone, head=head, align_corners=False), classes


def to_variables(net: Composition, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net. Raises UserError."""
  backbone, _, head = net.parts()
  inner = {ResNet: _resnet_rules, SwinTransformer: _swin_rules}
  kind = next((k for k in HEADS if lookup.find('head', k) is type(head)), '')
  if type(backbone) not in inner or not kind:
    raise UserError(f'transformers has no {type(head).__name__} on a {type(backbone).__name__}')
  rules = [*inner[type(backbone)](), *HEADS[kind][1]()]
  return convert(rules, separate(weights), template, UNUSED)


def _backbone(of: Settings) -> dict[str, Any]:
  of.passed(*GENERAL, 'stage_names')
  of.only('num_channels', 3)
  of.only('in_channels', 3)
  of.only('out_features', STAGES, None)
  of.only('out_indices', (1, 2, 3, 4), None)
  of.only('pruned_heads', {}, None)
  of.only('model_type', 'swin', 'maskformer-swin', 'resnet')
  return _resnet(of) if of('model_type') == 'resnet' else _swin(of)


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


def _resnet_rules() -> list[Rule]:
  def normed(theirs, convolved, normalised):
    kernel = Rule(rf'{theirs}\.convolution\.weight', f'{convolved}/kernel', convolution)
    return [kernel, *norm(rf'{theirs}\.normalization', normalised)]

  stem = 'backbone/stem'
  table = normed(rf'{ENCODER}embedder\.embedder', f'{stem}_conv', f'{stem}_norm')
  for k in range(4):
    theirs, ours = (
      rf'{ENCODER}encoder\.stages\.{k}\.layers\.(\d+)',
      rf'backbone/stage{k + 1}_block\1',
    )
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


def _swin_rules() -> list[Rule]:
  inner, path = rf'{ENCODER}(?:swin\.|model\.)?', 'backbone'
  patches = rf'{inner}embeddings\.'
  table = with_bias(rf'{patches}patch_embeddings\.projection', f'{path}/embed', convolution)
  table += layer_norm(rf'{patches}norm', f'{path}/embed_norm')
  for k in range(4):
    stage, ours = rf'{inner}encoder\.layers\.{k}', f'{path}/stage{k + 1}'
    table += layer_norm(rf'{ENCODER}hidden_states_norms\.(?:stage{k + 1}|{k})', f'{ours}_norm')
    merge = f'{path}/stage{k + 2}_merge'
    table.append(Rule(rf'{stage}\.downsample\.reduction\.weight', f'{merge}/kernel', linear))
    table += layer_norm(rf'{stage}\.downsample\.norm', f'{merge}_norm')
    block, ours = rf'{stage}\.blocks\.(\d+)', rf'{ours}_block\1'
    table += layer_norm(rf'{block}\.layernorm_before', f'{ours}/norm1')
    table += layer_norm(rf'{block}\.layernorm_after', f'{ours}/norm2')
    attention, mine = rf'{block}\.attention\.', f'{ours}/attention'
    for theirs, name in (
      ('(?:self\\.query|q_proj)', 'query'),
      ('(?:self\\.key|k_proj)', 'key'),
      ('(?:self\\.value|v_proj)', 'value'),
      ('(?:output\\.dense|o_proj)', 'out'),
    ):
      table += with_bias(attention + theirs, f'{mine}/{name}', linear)
    bias = rf'{attention}(?:self|relative_position_bias)\.relative_position_bias_table'
    table.append(Rule(bias, f'{mine}/position_bias'))
    table += with_bias(rf'{block}\.(?:mlp\.fc1|intermediate\.dense)', f'{ours}/expand', linear)
    table += with_bias(rf'{block}\.(?:mlp\.fc2|output\.dense)', f'{ours}/contract', linear)
  return table


def _maskformer(of: Settings) -> dict[str, Any]:
  given = Settings(of('decoder_config', None) or {}, 'config.decoder_config')
  of.passed('backbone', 'use_pretrained_backbone', 'use_timm_backbone', 'backbone_kwargs')
  given.passed(*GENERAL, *DETR)
  given.only('model_type', 'detr')
  given.only('activation_function', 'relu')
  given.only('decoder_layerdrop', 0.0)
  inner = given('activation_dropout', 0.0)
  given.only('attention_dropout', inner)
  entry = dict(name='maskformer', features=of('fpn_feature_size', 256))
  entry |= dict(mask_features=of('mask_feature_size', 256), width=given('d_model', 256))
  entry |= dict(queries=given('num_queries', 100), depth=given('decoder_layers', 6))
  entry |= dict(heads=given('decoder_attention_heads', 8))
  entry |= dict(expansion=given('decoder_ffn_dim', 2048), inner_dropout=float(inner))
  entry |= dict(dropout=float(given('dropout', 0.1)))
  given.finish()
  return entry


def _mask2former(of: Settings) -> dict[str, Any]:
  features = of('hidden_dim', 256)
  of.only('feature_size', features)  # transformers loads no projection between two widths
  of.only('enforce_input_projection', False)
  of.only('is_video', False)
  of.only('feature_strides', (4, 8, 16, 32))
  of.only('common_stride', 4)
  of.only('activation_function', 'relu')
  of.passed('backbone', 'use_pretrained_backbone', 'use_timm_backbone', 'backbone_kwargs')
  entry = dict(name='mask2former', features=features, mask_features=of('mask_feature_size', 256))
  # The first prediction, from queries alone, counts as a layer there.
  entry |= dict(queries=of('num_queries', 100), depth=of('decoder_layers', 10) - 1)
  entry |= dict(heads=of('num_attention_heads', 8), expansion=of('dim_feedforward', 2048))
  entry |= dict(pixel_depth=of('encoder_layers', 6), norm_first=of('pre_norm', False))
  entry |= dict(pixel_expansion=of('encoder_feedforward_dim', 1024))
  return entry | dict(dropout=float(of('dropout', 0.0)))


def _attention(theirs: str, ours: str) -> list[Rule]:
  table = []
  for name, own in (('q_proj', 'query'), ('k_proj', 'key'), ('v_proj', 'value')):
    table += with_bias(rf'{theirs}\.{name}', f'{ours}/{own}', linear)
  return table + with_bias(rf'{theirs}\.o(?:ut)?_proj', f'{ours}/out', linear)


def _layers(theirs: str, ours: str) -> list[Rule]:
  """What a layer of any of the transformers has besides its attention."""
  table = layer_norm(rf'{theirs}\.self_attn_layer_norm', f'{ours}/self_residual/norm')
  table += layer_norm(rf'{theirs}\.final_layer_norm', f'{ours}/forward_residual/norm')
  table += with_bias(rf'{theirs}\.(?:mlp\.)?fc1', f'{ours}/feed_forward/expand', linear)
  return table + with_bias(rf'{theirs}\.(?:mlp\.)?fc2', f'{ours}/feed_forward/contract', linear)


def _decoder(cross: str, embedder: str) -> list[Rule]:
  layer, ours = rf'{DECODER}decoder\.layers\.(\d+)', r'layer\1'
  table = _layers(layer, ours) + _attention(rf'{layer}\.self_attn', f'{ours}/self_attention')
  table += layer_norm(rf'{layer}\.{cross}_layer_norm', f'{ours}/image_residual/norm')
  table += layer_norm(rf'{DECODER}decoder\.layernorm', 'norm')
  table += with_bias(r'class_predictor', 'classify', linear)
  table += with_bias(rf'{embedder}mask_embedder\.(\d)\.0', r'mask_embed/layer\1', linear)
  return [*table, Rule(rf'{DECODER}queries_embedder\.weight', 'query_codes')]


def _grouped(theirs: str, ours: str) -> list[Rule]:
  kernel = with_bias(rf'{theirs}\.0', f'{ours}/conv', convolution)
  return kernel + layer_norm(rf'{theirs}\.1', f'{ours}/norm')


def _maskformer_rules() -> list[Rule]:
  table = _decoder('encoder_attn', '')
  cross = rf'{DECODER}decoder\.layers\.(\d+)\.encoder_attn'
  table += _attention(cross, r'layer\1/image_attention')
  table += with_bias(rf'{DECODER}input_projection', 'project', point)
  table += with_bias(rf'{PIXELS}mask_projection', 'pixels/project', convolution)
  table += _grouped(rf'{PIXELS}fpn\.stem', 'pixels/smooth4')
  for k in range(3):
    theirs = rf'{PIXELS}fpn\.layers\.{k}'
    table += _grouped(rf'{theirs}\.proj', f'pixels/lateral{3 - k}')
    table += _grouped(rf'{theirs}\.block', f'pixels/smooth{3 - k}')
  return table


def _mask2former_rules() -> list[Rule]:
  table = _decoder('cross_attn', rf'{DECODER}decoder\.mask_predictor\.')
  cross, ours = rf'{DECODER}decoder\.layers\.(\d+)\.cross_attn', r'layer\1/image_attention'
  table += with_bias(rf'{cross}\.(query|key|value)', rf'{ours}/\2', linear)
  table += with_bias(rf'{cross}\.out_proj', f'{ours}/out', linear)
  table.append(Rule(rf'{DECODER}queries_features\.weight', 'query'))
  table.append(Rule(rf'{DECODER}level_embed\.weight', 'level_codes'))
  table.append(Rule(rf'{PIXELS}level_embed', 'pixels/level_codes'))
  for k in range(3):
    table += _grouped(rf'{PIXELS}input_projections\.{k}', f'pixels/project{4 - k}')
  table += _grouped(rf'{PIXELS}adapter_1', 'pixels/lateral1')
  table += _grouped(rf'{PIXELS}layer_1', 'pixels/smooth1')
  table += with_bias(rf'{PIXELS}mask_projection', 'pixels/project', convolution)
  layer, ours = rf'{PIXELS}encoder\.layers\.(\d+)', r'pixels/layer\1'
  table += _layers(layer, ours)
  for theirs, name in (
    ('sampling_offsets', 'offsets'),
    ('attention_weights', 'weights'),
    ('value_proj', 'value'),
    ('output_proj', 'out'),
  ):
    table += with_bias(rf'{layer}\.self_attn\.{theirs}', f'{ours}/attention/{name}', linear)
  return table


HEADS = {
  'mask2former': (_mask2former, _mask2former_rules),
  'maskformer': (_maskformer, _maskformer_rules),
}
