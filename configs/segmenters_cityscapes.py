"""Segmenters of Cityscapes at full size, as mmsegmentation and detectron2 train and test them.

  car-jax prepare cityscapes --source FOLDER --scale 1
  car-jax import mmseg FILE --out run
  car-jax eval --checkpoint run

A checkpoint of theirs says itself what it is; this file is for one that does not (--config of the
importer with the same file), and for training: `car-jax train --config` with a variant follows the
published recipe. It departs from it in the start, which is random unless `--config.init` names an
ImageNet backbone, in the augmentation (no rescaling and no colour jitter), and in crops, which are
square: 769x769 for the published 512x1024. configs/relis.py and configs/genval.py name the
published files and scores of most of them.
"""

from typing import Any

from ml_collections import ConfigDict

from car_jax import variants
from car_jax.configs import segformer_cityscapes
from car_jax.nn.segformer import VARIANTS as SEGFORMERS


def resnet(depth, dilated=True, **kw):
  return dict(name='resnet', depth=depth, deep_stem=True, output_stride=8 if dilated else 32) | kw


def fcn(index, features, convolutions=1, weight=0.4, **kw):
  """An auxiliary head."""
  head = dict(name='fcn', index=index, features=features, num_convs=convolutions)
  return dict(head=head | dict(concat_input=False) | kw, weight=weight)


def numbered(heads):
  return {f'auxiliary{i}': head for i, head in enumerate(heads, 1)}


def net(backbone, head, *auxiliary, neck=None, align_corners=True):
  parts = dict(backbone=backbone, head=head, neck=neck, auxiliary=numbered(auxiliary))
  return dict(name='composed', align_corners=align_corners) | parts


def dilated(head, depth, **kw):
  """A head on the last map of a ResNet at 1/8, and a small one on the map before."""
  features = 128 if depth < 50 else 512
  third = fcn(2, 64 if depth < 50 else 256)
  return net(resnet(depth), dict(name=head, features=features) | kw, third)


def upernet(backbone, *auxiliary, **kw):
  auxiliary = auxiliary or (fcn(2, 256),)
  return net(backbone, dict(name='upernet', features=512), *auxiliary, **kw)


def setr(head, auxiliary=(), neck=None, outputs=(9, 14, 19, 23)):
  vit = dict(name='vit', width=1024, depth=24, heads=16, image_size=(768, 768), outputs=outputs)
  vit |= dict(interpolation='bilinear', keep_class_token=neck is None)
  return net(vit, head | dict(dropout=0.0), *auxiliary, neck=neck, align_corners=False)


def setr_up(convolutions, scale, kernel, of_auxiliary):
  head = dict(name='setr_up', features=256, scale=scale, kernel=kernel, convolutions=convolutions)
  other = dict(head, scale=4, convolutions=of_auxiliary, dropout=0.1)
  return setr(head, [dict(head=dict(other, index=i)) for i in range(3)])


def segmenter():
  vit = dict(name='vit', width=1024, depth=24, heads=16, image_size=(768, 768), final_norm=True)
  head = dict(name='segmenter', features=1024, depth=2, heads=16)
  return net(vit | dict(drop_path=0.1), head)


def bisenetv1(depth, spatial):
  widths = dict(spatial_features=(spatial,) * 3 + (2 * spatial,), context_features=2 * spatial)
  backbone = resnet(depth, False, name='bisenetv1', deep_stem=False, features=4 * spatial, **widths)
  others = [fcn(i, spatial, weight=1.0) for i in (1, 2)]
  head = dict(name='fcn', index=0, features=4 * spatial, num_convs=1, concat_input=False)
  return net(backbone, head, *others, align_corners=False)


def bisenetv2():
  others = [fcn(i, features, 2, 1.0) for i, features in enumerate((16, 64, 256, 1024), 1)]
  head = dict(name='fcn', index=0, features=1024, num_convs=1, concat_input=False)
  return net(dict(name='bisenetv2'), head, *others, align_corners=False)


def icnet(depth):
  features = (64, 256, 256)
  backbone = resnet(depth, name='icnet', ceil_pool=True, features=features)
  head = fcn(2, 128, dropout=0.0)['head']
  neck = dict(name='icnet', features=128)
  return net(backbone, head, fcn(0, 128), fcn(1, 128), neck=neck, align_corners=False)


def semfpn(depth):
  head = dict(name='semfpn', features=128)
  neck = dict(name='fpn', features=256)
  return net(resnet(depth, False), head, neck=neck, align_corners=False)


def convnext(width):
  widths = tuple(width * 2**k for k in range(4))
  backbone = dict(name='convnext', widths=widths, depths=(3, 3, 27, 3), drop_path=0.4)
  return upernet(backbone | dict(layer_scale=1.0, shrink_epsilon=1e-5), fcn(2, 256))


def bit():
  head = dict(name='upernet', features=512, index=(1, 2, 3, 4))  # the map before is the stem's
  return net(dict(name='resnetv2'), head, fcn(3, 256))


def swin_large(**kw):
  backbone = dict(name='swin', width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48), window=12)
  return backbone | dict(drop_path=0.3) | kw


def segformer(variant):
  """With mmsegmentation's head, which is 256 wide in every variant."""
  of = SEGFORMERS[variant]
  backbone = dict(name='mit', widths=of.widths, depths=of.depths)
  return net(backbone, dict(name='segformer', features=256), align_corners=False)


def maskformer():
  """On DeepLab's ResNet-101, whose batch norms train here and stay as they are in the paper."""
  backbone = resnet(101, False, stem_channels=128, width=64, multi_grid=(1, 2, 4))
  return net(backbone, dict(name='maskformer', inner_dropout=0.1), align_corners=False)


def mask2former():
  return net(swin_large(), dict(name='mask2former'), align_corners=False)


POLY = dict(schedule='poly', power=0.9, end=1e-4)
SGD = dict(name='sgd', lr=0.01, momentum=0.9, weight_decay=5e-4) | POLY
WARM = dict(warmup_steps=1_000, warmup_start=0.001)
SETR = SGD | dict(weight_decay=0.0, rates=((r'^(?!(backbone|neck)/)', 10.0),))
ADAMW = segformer_cityscapes.RECIPE
SWIN = ADAMW | dict(rates=(), decays=(('norm', 0.0), ('position_bias', 0.0)))
# Of a layer of a stage .9 ** (13 - its number): the mean rate of a stage, and of what shrinks.
STAGES = [(r'backbone/stage\d_embed', 0.9**13)]
STAGES += [(rf'backbone/stage{k}_', 0.9 ** (13 - k)) for k in (1, 2, 3, 4)]
CONVNEXT = ADAMW | dict(lr=1e-4, weight_decay=0.05, rates=tuple(STAGES))
CONVNEXT |= dict(decays=((r'(bias|scale|factor)$', 0.0),))
MASKS = dict(name='adamw', lr=1e-4, weight_decay=0.05, schedule='poly', power=0.9, clip=0.01)
MASKS |= dict(rates=((r'^backbone/', 0.1),))
MASKS |= dict(decays=((r'norm|position_bias|^(query|query_codes|level_codes)$', 0.0),))

SLIDE = dict(crop=769, stride=513, fit=(2049, 1025))
WIDE = dict(crop=768, stride=512, fit=(2049, 1025))
TALL = dict(crop=1024, stride=768, fit=(2048, 1024))
WHOLE = dict(crop=0, stride=0, fit=(2048, 1024))

# Variant -> net, recipe, steps, images of a batch, side of crops, how it is tested
MODELS: dict[str, Any] = {
  **{
    f'{name}_r{depth}': (
      lambda head=head, depth=depth: dilated(head, depth),
      SGD,
      80,
      8,
      769,
      SLIDE,
    )
    for name, head in (('ann', 'ann'), ('apcnet', 'apc'), ('ccnet', 'cc'), ('gcnet', 'gc'))
    for depth in (50, 101)
  },
  **{
    f'pspnet_r{depth}': (lambda depth=depth: dilated('psp', depth), SGD, 80, 8, 769, SLIDE)
    for depth in (18, 50, 101)
  },
  'upernet_r18': (
    lambda: upernet(resnet(18, False), align_corners=False),
    SGD,
    80,
    8,
    769,
    WHOLE,
  ),
  **{
    f'upernet_r{depth}': (lambda depth=depth: upernet(resnet(depth, False)), SGD, 80, 8, 769, SLIDE)
    for depth in (50, 101)
  },
  'upernet_bit_r50': (bit, SGD, 80, 8, 769, SLIDE),
  'upernet_convnext_base': (lambda: convnext(128), CONVNEXT, 80, 8, 769, SLIDE),
  'upernet_convnext_large': (lambda: convnext(192), CONVNEXT, 80, 8, 769, SLIDE),
  'upernet_swin_large': (
    lambda: upernet(swin_large(window=7, merge_by_channel=True), align_corners=False),
    SWIN,
    160,
    16,
    512,
    SLIDE,
  ),
  'setr_pup': (lambda: setr_up(4, 2, 3, 2), SETR, 80, 8, 768, WIDE),
  'setr_naive': (lambda: setr_up(1, 4, 1, 1), SETR, 80, 8, 768, WIDE),
  'setr_mla': (
    lambda: setr(
      dict(name='setr_mla', features=128),
      [fcn(i, 256, 0, kernel_size=1) for i in range(4)],
      dict(name='mla', features=256),
      (5, 11, 17, 23),
    ),
    SETR | dict(lr=0.002),
    80,
    8,
    768,
    WIDE,
  ),
  'segmenter': (segmenter, SETR | dict(lr=0.005, rates=()), 160, 4, 769, SLIDE),
  'bisenetv1_r18': (lambda: bisenetv1(18, 64), SGD | WARM | dict(lr=0.025), 160, 16, 1024, WHOLE),
  'bisenetv1_r50': (lambda: bisenetv1(50, 256), SGD | WARM | dict(lr=0.05), 160, 16, 1024, WHOLE),
  'bisenetv2': (bisenetv2, SGD | WARM | dict(lr=0.05), 160, 16, 1024, WHOLE),
  **{
    f'icnet_r{depth}': (lambda depth=depth: icnet(depth), SGD, 160, 8, 832, WHOLE)
    for depth in (18, 50, 101)
  },
  **{
    f'semfpn_r{depth}': (lambda depth=depth: semfpn(depth), SGD, 80, 8, 769, WHOLE)
    for depth in (50, 101)
  },
  'mobilenetv3': (
    lambda: net(dict(name='mobilenetv3'), dict(name='lraspp', features=128), align_corners=False),
    SGD,
    320,
    16,
    769,
    WHOLE,
  ),
  **{
    f'deeplabv3plus_r{depth}': (
      lambda depth=depth: dilated(
        'deeplabv3plus', depth, low_features=48 if depth > 18 else 12, rates=(12, 24, 36)
      ),
      SGD,
      80,
      8,
      769,
      SLIDE,
    )
    for depth in (18, 50, 101)
  },
  **{
    f'segformer_{variant}': (lambda v=variant: segformer(v), ADAMW, 160, 8, 1024, TALL)
    for variant in SEGFORMERS
  },
  'segformer_b5_whole': (lambda: segformer('b5'), ADAMW, 80, 4, 1024, WHOLE),
  'maskformer_r101c': (maskformer, MASKS | dict(weight_decay=1e-4), 90, 16, 769, WHOLE),
  'mask2former_swin_large': (mask2former, MASKS, 90, 16, 769, WHOLE),
}
VARIANTS = (*MODELS,)


def get_config(variant='pspnet_r50'):
  variants.check('segmenters_cityscapes', variant, VARIANTS)
  made, recipe, thousands, batch, side, test = MODELS[variant]
  c = segformer_cityscapes.get_config()
  c.method.model, c.steps = made(), 1_000 * thousands
  c.method.optim = ConfigDict(recipe | dict(decay_steps=c.steps))
  c.method.crop, c.method.stride = test['crop'], test['stride']
  c.data.size, c.data.batch, c.data.fit = side, batch, test['fit']
  return c
