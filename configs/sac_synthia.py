"""DA-SAC (arXiv 2105.00097): from SYNTHIA to Cityscapes, in two stages, as configs/sac_gta5.py.

  car-jax prepare synthia --source FOLDER
  car-jax prepare cityscapes --source FOLDER --scale 1 --splits adaptation
  car-jax train --config configs/sac_synthia.py:resnet101_base \\
    --workdir runs/synthia_resnet101_base
  car-jax train --config configs/sac_synthia.py:resnet101 --workdir runs/synthia_resnet101

MIOU has what is published, of the 16 classes that SYNTHIA labels. Nets have 19 outputs; terrain,
truck and train are left out of the scores. `THIRTEEN` leaves out wall, fence and pole besides.
"""

from car_jax.configs import sac_gta5
from car_jax.configs._published import publish

ABSENT = (9, 14, 16)
THIRTEEN = 'miou[classes=0+1+2+6+7+8+10+11+12+13+15+17+18]'
MIOU = dict(resnet101_base=36.3, vgg16_base=34.4, fcn8s_base=31.6)
MIOU |= dict(resnet101=52.6, vgg16=49.1, fcn8s=46.8)
STEPS = dict(resnet101_base=70_470, vgg16_base=41_090, fcn8s_base=23_480)
STEPS |= dict(resnet101=86_950, vgg16=110_450, fcn8s=68_150)
VARIANTS = (*STEPS,)


def get_config(variant='resnet101'):
  labelled = tuple(k for k in range(19) if k not in ABSENT)
  c = sac_gta5.get_config(variant, 'synthia', STEPS, labelled, 'sac_synthia')
  if not variant.endswith('_base'):
    c.data.target.uniform_classes = ABSENT
  c.report.metrics = ('miou', THIRTEEN)
  more = sac_gta5.miou(59.3, THIRTEEN, 13) if variant == 'resnet101' else {}
  publish(c, **sac_gta5.miou(MIOU[variant], classes=16), **more)
  return c
