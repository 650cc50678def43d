"""Small segmenters of drawn street scenes in clear air, 64x128: what studies compare.

  car-jax prepare street_scenes --height 64 --count 400
  car-jax train --config configs/segmenters_street_scenes.py:segformer --workdir runs/segformer

About a minute each on two CPU cores. configs/reliability.py scores the first six in fog, at
night, in rain and in snow; configs/reliability_generated.py others after short and long training.
Variants:

  deeplabv3plus      a ResNet, dilated convolutions at several rates, a finer map joined in
  segformer          attention at four resolutions, a head of plain layers
  bisenetv2          a fine and a coarse branch of convolutions, each gating the other
  setr               attention among all patches at one resolution, then convolutions that enlarge
  upernet_swin       attention within shifted windows, pooling at several scales, a feature pyramid
  upernet_convnext   the same head on depthwise 7 x 7 convolutions
  pspnet             a ResNet, pooling at several scales
  semfpn             a ResNet, a feature pyramid
  segmenter          as setr, but a token for each class that masks are made with
  fcn8s, deeplabv2   a VGG with skips from finer maps; a ResNet without
"""

from ml_collections import ConfigDict

from car_jax import variants


def composed(backbone, head, neck=None):
  """A net of these parts."""
  return dict(name='composed', backbone=backbone, neck=neck, head=head)


RESNET = dict(name='resnet', depth=18, stem_channels=16, blocks=(1, 1, 1, 1))
VIT = dict(name='vit', image_size=(64, 64), patch=8, width=96, depth=4, heads=4)
UPER = dict(name='upernet', features=32)
MODELS = dict(
  deeplabv3plus=dict(
    name='deeplabv3plus',
    depth=18,
    stem_channels=16,
    blocks=(1, 1, 1, 1),
    features=48,
    low_features=16,
    rates=(2, 4, 6),
  ),
  segformer=dict(
    name='segformer',
    widths=(16, 32, 64, 96),
    depths=(1, 1, 2, 1),
    heads=(1, 2, 4, 6),
    features=64,
  ),
  fcn8s=dict(name='fcn8s_vgg', widths=(12, 24, 32, 48, 48), depths=(1, 1, 2, 2, 2), features=64),
  deeplabv2=dict(name='deeplabv2_resnet', stem_channels=16, blocks=(1, 1, 1, 1), rates=(1,)),
  pspnet=composed(RESNET | dict(output_stride=8), dict(name='psp', features=48)),
  semfpn=composed(RESNET, dict(name='semfpn', features=48), dict(name='fpn', features=48)),
  upernet_swin=composed(
    dict(name='swin', width=24, depths=(2, 2, 2, 2), heads=(1, 2, 4, 8), window=4), UPER
  ),
  upernet_convnext=composed(
    dict(name='convnext', widths=(24, 48, 72, 96), depths=(1, 1, 2, 1), layer_scale=0.1), UPER
  ),
  bisenetv2=composed(
    dict(name='bisenetv2', detail_features=(16, 24, 48), semantic_features=(8, 16, 24, 48)),
    dict(name='fcn', features=64, num_convs=1, concat_input=False, index=0),
  ),
  setr=composed(VIT, dict(name='setr_up', features=48, convolutions=2)),
  segmenter=composed(
    VIT | dict(final_norm=True), dict(name='segmenter', features=96, depth=1, heads=4)
  ),
)
STEPS = dict(
  deeplabv3plus=1_200, segformer=1_200, bisenetv2=400, setr=800, upernet_swin=500,
  upernet_convnext=600, pspnet=1_000, semfpn=1_000, segmenter=800, fcn8s=1_200, deeplabv2=1_200,
)  # fmt: skip
VARIANTS = (*MODELS,)


def get_config(variant='deeplabv3plus'):
  variants.check('segmenters_street_scenes', variant, VARIANTS)
  c = ConfigDict()
  c.method = dict(name='supervised', model=MODELS[variant], optim=dict(lr=1e-3))
  c.data = dict(name='street_scenes/height64-count400', size=64, batch=8, eval_batch=8)
  c.data.train = 'train[:64]'  # few: as large nets on photographs, they become too sure
  c.data.crop, c.data.mirror, c.data.eval_size = 'random', True, 0
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = STEPS[variant], 50, 200, 200, 0
  c.evals = dict(val=dict(split='validation[:64]', samples=1, metrics=('miou[own]', 'nll[own]')))
  c.best = ''
  c.report = dict(split='test', samples=1, metrics=('miou[own]', 'ece[own]', 'nll[own]'))
  return c
