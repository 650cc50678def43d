"""Mask2Former and MaskFormer of transformers, in 4.x and 5.x."""

from typing import Any

from car_jax.importers import families
from car_jax.importers.rules import Rule, convolution, layer_norm, linear, point, with_bias
from car_jax.importers.settings import Settings
from car_jax.importers.transformers import backbones
from car_jax.importers.transformers.backbones import GENERAL, SOURCE, words

ENCODER = r'model\.pixel_level_module\.encoder\.'
PIXELS = r'model\.pixel_level_module\.decoder\.'
DECODER = r'model\.transformer_module\.'
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


def _backbone(of: Settings) -> dict[str, Any]:
  of.passed(*TRAINING, *SOURCE, 'num_hidden_layers', 'num_attention_heads')
  given = of.part('backbone_config')
  return backbones.entry(given, 'swin', 'maskformer-swin', 'resnet')


def maskformer(of: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
  backbone = _backbone(of)
  given = Settings(of('decoder_config', None) or {}, 'config.decoder_config')
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
  return backbone, entry


def mask2former(of: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
  backbone = _backbone(of)
  features = of('hidden_dim', 256)
  of.only('feature_size', features)  # transformers loads no projection between two widths
  of.only('enforce_input_projection', False)
  of.only('is_video', False)
  of.only('feature_strides', (4, 8, 16, 32))
  of.only('common_stride', 4)
  of.only('activation_function', 'relu')
  entry = dict(name='mask2former', features=features, mask_features=of('mask_feature_size', 256))
  # The first prediction, from queries alone, counts as a layer there.
  entry |= dict(queries=of('num_queries', 100), depth=of('decoder_layers', 10) - 1)
  entry |= dict(heads=of('num_attention_heads', 8), expansion=of('dim_feedforward', 2048))
  entry |= dict(pixel_depth=of('encoder_layers', 6), norm_first=of('pre_norm', False))
  entry |= dict(pixel_expansion=of('encoder_feedforward_dim', 1024))
  return backbone, entry | dict(dropout=float(of('dropout', 0.0)))


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


def maskformer_rules() -> list[Rule]:
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


def mask2former_rules() -> list[Rule]:
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
  return table + families.deformable_attention(rf'{layer}\.self_attn', f'{ours}/attention')
