"""DA-SAC (arXiv 2105.00097): from GTA5 to Cityscapes, in two stages.

  car-jax prepare gta5 --source FOLDER
  car-jax prepare cityscapes --source FOLDER --scale 1 --splits adaptation
  car-jax train --config configs/sac_gta5.py:resnet101_base --workdir runs/gta5_resnet101_base
  car-jax train --config configs/sac_gta5.py:resnet101 --workdir runs/gta5_resnet101
  car-jax eval --checkpoint runs/gta5_resnet101

Nets resnet101 and vgg16 (DeepLabv2), fcn8s (on VGG16); `_base` is the first stage. MIOU has what is
published of each. All of it, beside that: car-jax reproduce gta5-sac --source GTA5 CITYSCAPES
--imagenet resnet101-5d3b4d8f.pth

Those checkpoints were chosen by labels of val2, 500 of the images that are adapted to, as here.
--config.best= chooses none: the last step counts, without a label of the target. Published runs
began with ImageNet's weights: set --config.init.net=FOLDER:net. Weights of a pixel's loss are the
paper's; --config.method.weighting=batch_mean --config.method.averaged_views=2 (vgg16: 4) has those
of the published code. Published stages of vgg16 used 2 devices, the others 4.
"""

from ml_collections import ConfigDict

from car_jax import variants
from car_jax.configs._published import paper, publish, weights

# Published on the 500 validation images, in %.
MIOU = dict(resnet101_base=40.8, vgg16_base=37.1, fcn8s_base=36.7)
MIOU |= dict(resnet101=53.8, vgg16=49.8, fcn8s=49.9)
SOURCE = 'README of the code released with Araslanov and Roth, CVPR 2021'
MODELS = dict(
  resnet101=dict(name='deeplabv2_resnet', depth=101, dtype='float32'),
  vgg16=dict(name='deeplabv2_vgg', dtype='float32'),
  fcn8s=dict(name='fcn8s_vgg', dtype='float32'),
)
LR = dict(resnet101=2.5e-4, vgg16=2.5e-4, fcn8s=5e-4)
TARGETS = dict(resnet101=8, vgg16=2, fcn8s=4)  # images a step of the first stage
# Steps up to the epoch that was published, of each stage.
STEPS = dict(resnet101_base=30_000, vgg16_base=64_630, fcn8s_base=22_480)
STEPS |= dict(resnet101=108_000, vgg16=77_625, fcn8s=81_000)
WIDE, SQUARE = (512, 1024), (640, 640)
VARIANTS = (*STEPS,)


def base(c, net):
  """Statistics of both domains, labels of one."""
  c.method.name = 'abn'
  c.data.batch = 12 if net == 'resnet101' else 16
  jitter = 0.5 if net == 'resnet101' else 0.4
  window = dict(size=SQUARE, scale=(0.5, 2.0), jitter=jitter)
  c.data.source = c.data.source.to_dict() | window
  c.data.target = window | dict(groups=TARGETS[net], views=0)


def adapted(c, net, base_run):
  """Labels of the source, and the teacher's."""
  large = net == 'resnet101'
  c.method.name = 'sac'
  c.method.update(views=4, upper=0.75, lower=0.2 if large else 0.1, discount=True, pool='mean')
  c.method.update(teacher_period=100, teacher_momentum=0.99, prior_scale=1e-3, prior_momentum=0.99)
  c.method.update(focal_power=3.0)
  c.method.update(target_weight=5.0 if large else 2.0, weighting='own', averaged_views=0)
  c.init.net = f'{base_run}:net'
  c.data.batch = 8
  c.data.source = c.data.source.to_dict() | dict(size=WIDE, scale=(0.5, 1.0), jitter=0.0)
  c.data.target = dict(groups=2, views=4, size=WIDE, scale=(1.0, 1.1), zoom=(0.5, 1.0), jitter=0.4)
  c.data.target.update(blur=(0.1, 2.0), greyscale=0.2, mirror_views=True)


def miou(value, score='miou', classes=19):
  """A published mIoU in %, of snapshots that were released. Trainings differ by more than a point.

  -> entries of it for c.published.
  """
  how = f'{classes} classes, images of 1024 x 2048 whole, one scale, not mirrored, the student'
  value, name = round(value / 100, 4), f'miou{classes}'
  return {
    name: paper(score, value, None, SOURCE, 0.015, how),
    f'weights_{name}': weights(score, value, SOURCE, 0.003, how),
  }


def get_config(variant='resnet101', source='gta5', steps=STEPS, classes='', file='sac_gta5'):
  variants.check(file, variant, steps)
  net = variant.removesuffix('_base')
  c = ConfigDict()
  c.method = dict(model=MODELS[net], optim=dict(name='sgd', lr=LR[net], weight_decay=5e-4))
  c.init = dict()
  c.data = dict(name='cityscapes/scale1-splits_adaptation', train='adaptation')
  c.data.update(eval_batch=1, threads=8)
  c.data.source = dict(name=source, renormalise=True)
  if variant == net:
    adapted(c, net, f'runs/{source}_{net}_base')
  else:
    base(c, net)
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = steps[variant], 100, 2_250, 1_125, 0
  spec = dict(samples=1, absent='skip', classes=classes, metrics=('miou',))
  c.evals = dict(val2=spec | dict(split='val2'))
  c.best = 'val2/miou:max'
  c.report = spec | dict(split='validation')
  publish(c, **miou(MIOU[variant]))
  return c
