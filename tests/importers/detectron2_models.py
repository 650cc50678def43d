"""Names and shapes of what Mask2Former's and MaskFormer's repositories save, from their modules."""

import re

WIDTH = 256  # of everything in a head
RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
SWINS = {'tiny': (96, (2, 2, 6, 2), 7), 'small': (96, (2, 2, 18, 2), 7)}
SWINS |= {'base': (128, (2, 2, 18, 2), 12), 'large': (192, (2, 2, 18, 2), 12)}


def both(name, *shape):
  """A weight and a bias for each of its rows."""
  return {f'{name}.weight': shape, f'{name}.bias': shape[:1]}


def attention(name):
  table = {f'{name}.in_proj_weight': (3 * WIDTH, WIDTH), f'{name}.in_proj_bias': (3 * WIDTH,)}
  return table | both(f'{name}.out_proj', WIDTH, WIDTH)


def resnet(depth, *, deep, counted):
  """deep: DeepLab's stem. counted: batch norms that are not frozen."""
  table = {}

  def unit(name, *shape):
    table[f'backbone.{name}.weight'] = shape
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
      table[f'backbone.{name}.norm.{leaf}'] = shape[:1]
    if counted:
      table[f'backbone.{name}.norm.num_batches_tracked'] = ()

  if deep:
    unit('stem.conv1', 64, 3, 3, 3)
    unit('stem.conv2', 64, 64, 3, 3)
    unit('stem.conv3', 128, 64, 3, 3)
  else:
    unit('stem.conv1', 64, 3, 7, 7)
  before = 128 if deep else 64
  for k, count in enumerate(RESNETS[depth]):
    inner, outer = 64 * 2**k, 256 * 2**k
    for i in range(count):
      block = f'res{k + 2}.{i}'
      if i == 0:
        unit(f'{block}.shortcut', outer, before, 1, 1)
      unit(f'{block}.conv1', inner, before, 1, 1)
      unit(f'{block}.conv2', inner, inner, 3, 3)
      unit(f'{block}.conv3', outer, inner, 1, 1)
      before = outer
  return table, [256 * 2**k for k in range(4)]


def swin(variant):
  width, depths, window = SWINS[variant]
  table = both('backbone.patch_embed.proj', width, 3, 4, 4)
  table |= both('backbone.patch_embed.norm', width)
  for k, depth in enumerate(depths):
    d, heads, layer = width * 2**k, width * 2**k // 32, f'backbone.layers.{k}'
    for i in range(depth):
      block = f'{layer}.blocks.{i}'
      table |= both(f'{block}.norm1', d) | both(f'{block}.norm2', d)
      bias = f'{block}.attn.relative_position'
      table[f'{bias}_bias_table'] = ((2 * window - 1) ** 2, heads)
      table[f'{bias}_index'] = (window**2, window**2)
      table |= both(f'{block}.attn.qkv', 3 * d, d) | both(f'{block}.attn.proj', d, d)
      table |= both(f'{block}.mlp.fc1', 4 * d, d) | both(f'{block}.mlp.fc2', d, 4 * d)
    if k < 3:
      table[f'{layer}.downsample.reduction.weight'] = (2 * d, 4 * d)
      table |= both(f'{layer}.downsample.norm', 4 * d)
    table |= both(f'backbone.norm{k}', d)
  return table, [width * 2**k for k in range(4)]


def classifying(classes, queries):
  """What both predictors have."""
  name = 'sem_seg_head.predictor'
  table = both(f'{name}.class_embed', classes + 1, WIDTH)
  for k in range(3):
    table |= both(f'{name}.mask_embed.layers.{k}', WIDTH, WIDTH)
  table['criterion.empty_weight'] = (classes + 1,)
  return table | {f'{name}.query_embed.weight': (queries, WIDTH)}


def grouped(name, *shape):
  return {f'{name}.weight': shape} | both(f'{name}.norm', WIDTH)


def mask2former(channels, classes=19, queries=100):
  pixels, predictor = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
  table = classifying(classes, queries) | both(f'{pixels}.mask_features', WIDTH, WIDTH, 1, 1)
  table |= grouped(f'{pixels}.adapter_1', WIDTH, channels[0], 1, 1)
  table |= grouped(f'{pixels}.layer_1', WIDTH, WIDTH, 3, 3)
  for k in range(3):
    table |= both(f'{pixels}.input_proj.{k}.0', WIDTH, channels[3 - k], 1, 1)
    table |= both(f'{pixels}.input_proj.{k}.1', WIDTH)
  table[f'{pixels}.transformer.level_embed'] = (3, WIDTH)
  for i in range(6):
    layer = f'{pixels}.transformer.encoder.layers.{i}'
    table |= both(f'{layer}.norm1', WIDTH) | both(f'{layer}.norm2', WIDTH)
    table |= both(f'{layer}.linear1', 1024, WIDTH) | both(f'{layer}.linear2', WIDTH, 1024)
    table |= both(f'{layer}.self_attn.sampling_offsets', 192, WIDTH)
    table |= both(f'{layer}.self_attn.attention_weights', 96, WIDTH)
    for name in ('value_proj', 'output_proj'):
      table |= both(f'{layer}.self_attn.{name}', WIDTH, WIDTH)
  table |= both(f'{predictor}.decoder_norm', WIDTH)
  table[f'{predictor}.query_feat.weight'] = (queries, WIDTH)
  table[f'{predictor}.level_embed.weight'] = (3, WIDTH)
  for i in range(9):
    layer = f'{predictor}.transformer_self_attention_layers.{i}'
    table |= attention(f'{layer}.self_attn') | both(f'{layer}.norm', WIDTH)
    layer = f'{predictor}.transformer_cross_attention_layers.{i}'
    table |= attention(f'{layer}.multihead_attn') | both(f'{layer}.norm', WIDTH)
    layer = f'{predictor}.transformer_ffn_layers.{i}'
    table |= both(f'{layer}.linear1', 2048, WIDTH) | both(f'{layer}.linear2', WIDTH, 2048)
    table |= both(f'{layer}.norm', WIDTH)
  return table


def maskformer(channels, classes=19, queries=100):
  pixels, predictor = 'sem_seg_head.pixel_decoder', 'sem_seg_head.predictor'
  table = classifying(classes, queries) | both(f'{pixels}.mask_features', WIDTH, WIDTH, 3, 3)
  for k in range(3):
    table |= grouped(f'{pixels}.adapter_{k + 1}', WIDTH, channels[k], 1, 1)
    table |= grouped(f'{pixels}.layer_{k + 1}', WIDTH, WIDTH, 3, 3)
  table |= grouped(f'{pixels}.layer_4', WIDTH, channels[3], 3, 3)
  table |= both(f'{predictor}.input_proj', WIDTH, channels[3], 1, 1)
  table |= both(f'{predictor}.transformer.decoder.norm', WIDTH)
  for i in range(6):
    layer = f'{predictor}.transformer.decoder.layers.{i}'
    table |= attention(f'{layer}.self_attn') | attention(f'{layer}.multihead_attn')
    table |= both(f'{layer}.linear1', 2048, WIDTH) | both(f'{layer}.linear2', WIDTH, 2048)
    for k in (1, 2, 3):
      table |= both(f'{layer}.norm{k}', WIDTH)
  return table


def model(head, backbone, **options):
  table, channels = backbone
  return table | head(channels, **options)


def older(table):
  """In the names that files of the model zoos may have."""
  new = {name.replace('query_feat', 'static_query'): x for name, x in table.items()}
  return {name.replace('head.pixel_decoder.', 'head.'): x for name, x in new.items()}


SWIN = (
  (r'embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
  (r'embeddings\.norm', 'patch_embed.norm'),
  (r'encoder\.(layers\.)', r'\1'),
  (r'layernorm_before', 'norm1'),
  (r'layernorm_after', 'norm2'),
  (r'attention\.relative_position_bias\.', 'attn.'),
  (r'attention\.o_proj', 'attn.proj'),
  (r'attention\.([qkv])_proj', r'attn.qkv.\1'),
  (r'^stage(\d)', lambda m: f'norm{int(m[1]) - 1}'),
)
RESNET = (
  (r'embedder\.embedder', 'stem.conv1'),
  (r'encoder\.stages\.(\d)\.layers', lambda m: f'res{int(m[1]) + 2}'),
  (r'layer\.(\d)', lambda m: f'conv{int(m[1]) + 1}'),
  (r'\.convolution', ''),
  (r'\.normalization', '.norm'),
)
PIXELS = (
  (r'mask_projection', 'mask_features'),
  (r'input_projections', 'input_proj'),
  (r'^level_embed', 'transformer.level_embed'),
  (r'fpn\.stem', 'layer_4'),
  (r'fpn\.layers\.(\d)\.proj', lambda m: f'adapter_{3 - int(m[1])}'),
  (r'fpn\.layers\.(\d)\.block', lambda m: f'layer_{3 - int(m[1])}'),
  (r'((?:adapter|layer)_\d)\.0', r'\1'),
  (r'((?:adapter|layer)_\d)\.1', r'\1.norm'),
  (r'^encoder\.layers', 'transformer.encoder.layers'),
  (r'self_attn_layer_norm', 'norm1'),
  (r'final_layer_norm', 'norm2'),
  (r'fc(\d)', r'linear\1'),
)
SHARED = (
  (r'queries_embedder', 'query_embed'),
  (r'queries_features', 'query_feat'),
  (r'input_projection', 'input_proj'),
  (r'class_predictor', 'class_embed'),
  (r'(?:decoder\.mask_predictor\.)?mask_embedder\.(\d)\.0', r'mask_embed.layers.\1'),
  (r'\.mlp\.', '.'),
  (r'fc(\d)', r'linear\1'),
)
MASKFORMER = (
  (r'^decoder', 'transformer.decoder'),
  (r'self_attn_layer_norm', 'norm1'),
  (r'encoder_attn_layer_norm', 'norm2'),
  (r'final_layer_norm', 'norm3'),
  (r'decoder\.layernorm', 'decoder.norm'),
  (r'encoder_attn', 'multihead_attn'),
  (r'\.o_proj', '.out_proj'),
)
MASK2FORMER = (
  (r'decoder\.layernorm', 'decoder_norm'),
  (r'decoder\.layers\.(\d+)\.self_attn\.', r'transformer_self_attention_layers.\1.self_attn.'),
  (r'decoder\.layers\.(\d+)\.self_attn_layer_', r'transformer_self_attention_layers.\1.'),
  (
    r'decoder\.layers\.(\d+)\.cross_attn\.',
    r'transformer_cross_attention_layers.\1.multihead_attn.',
  ),
  (r'decoder\.layers\.(\d+)\.cross_attn_layer_', r'transformer_cross_attention_layers.\1.'),
  (r'decoder\.layers\.(\d+)\.final_layer_', r'transformer_ffn_layers.\1.'),
  (r'decoder\.layers\.(\d+)\.linear', r'transformer_ffn_layers.\1.linear'),
)
PARTS = {
  'model.pixel_level_module.encoder.swin.': ('backbone.', SWIN),
  'model.pixel_level_module.encoder.hidden_states_norms.': ('backbone.', SWIN),
  'model.pixel_level_module.encoder.': ('backbone.', RESNET),
  'model.pixel_level_module.decoder.': ('sem_seg_head.pixel_decoder.', PIXELS),
  'model.transformer_module.': ('sem_seg_head.predictor.', SHARED),
  '': ('sem_seg_head.predictor.', SHARED),
}


def from_transformers(name, *, mask2former):
  """transformers' name of a weight -> its authors' one, '' for one that they have not.

  What transformers' own scripts of conversion do, backwards. A joint projection's three parts still
  have names of their own.
  """
  if 'encoder.swin.layernorm' in name:
    return ''
  start = next(p for p in PARTS if name.startswith(p))
  theirs, rules = PARTS[start]
  name = name.removeprefix(start)
  if theirs.endswith('predictor.'):
    rules += MASK2FORMER if mask2former else MASKFORMER
  for pattern, new in rules:
    name = re.sub(pattern, new, name)
  return theirs + name
