"""DA-SAC (arXiv 2105.00097) on drawn street scenes, from clear air to snow, 64x128.

  make demo-adapt          data, all of these (three seeds, oracle one), a study: docs/adaptation.md

  car-jax prepare street_scenes --height 64 --count 400
  the same with --domain snow --seed 1
  car-jax train --config configs/sac_street_scenes.py:abn --workdir runs/snow/abn/seed0
  car-jax train --config configs/sac_street_scenes.py:sac --workdir runs/snow/sac/seed0
  and docs/adaptation.md for images drawn by the classes that `abn` finds on them

Variants, all scored in snow, in other scenes: `source` learns from labels in clear air only, `abn`
lets batch norm's statistics see the snow, `sac` continues `abn` with pseudo labels, `oracle` learns
from the snow's own labels. The last step counts: no label of the snow chooses it. The net starts
from nothing, so Adam takes the place of SGD. One rate of dilation: more of them cost four times as
much on a CPU, and 8x16 places leave them no room. A net that has
seen so little is seldom sure of small things: a larger prior_scale and unweighted pixels let them
be learnt. These, rates and noise were chosen on the snow's validation images of seeds 0 and 1; test
images had no part in it.
"""

from ml_collections import ConfigDict

from car_jax import variants

ROOT = 'runs/snow'
SOURCE = 'street_scenes/height64-count400'
TARGET = 'street_scenes/height64-count400-domain_snow-seed1'
MODEL = dict(name='deeplabv2_resnet', stem_channels=16, blocks=(1, 1, 1, 1), rates=(1,))
ADAM = dict(lr=3e-3, milestones=(6, 8), factor=0.3)  # epochs of 50 steps
METHODS: dict[str, dict] = dict(
  source=dict(name='supervised', optim=ADAM),
  abn=dict(name='abn', optim=ADAM),
  sac=dict(
    name='sac',
    optim=dict(lr=1e-3, milestones=(3,), factor=0.3),
    views=4,
    target_weight=5.0,
    upper=0.75,
    lower=0.2,
    prior_scale=0.03,
    weighting='none',
    teacher_period=5,
    teacher_momentum=0.98,
  ),
  oracle=dict(name='supervised', optim=ADAM),
)
STEPS = dict(source=450, abn=450, sac=200, oracle=450)
SIZE = (64, 128)
VARIANTS = (*METHODS,)


def get_config(variant='sac'):
  variants.check('sac_street_scenes', variant, VARIANTS)
  c = ConfigDict()
  c.method = METHODS[variant] | dict(model=MODEL)
  c.data = dict(name=TARGET, batch=8, eval_batch=8)
  window = dict(size=SIZE, scale=(1.0, 1.5), jitter=0.2)
  c.data.train = 'adaptation'
  c.data.source = window | dict(name=TARGET if variant == 'oracle' else SOURCE, renormalise=False)
  c.data.target = window | dict(groups=8, views=0) if variant == 'abn' else dict(groups=0)
  if variant == 'sac':
    c.init = dict(net=f'{ROOT}/abn/seed0:net')
    c.data.target = dict(groups=2, views=4, size=SIZE, zoom=(0.6, 1.0), blur=(0.1, 0.4), jitter=0.4)
    c.data.target.update(scale=(1.0, 1.1), greyscale=0.2)
  c.steps, c.log_every, c.eval_every, c.save_every, c.seed = STEPS[variant], 50, 200, 200, 0
  c.evals = dict(val=dict(split='validation[:64]', samples=1, metrics=('miou[own]',)))
  c.report = dict(split='test', samples=1, metrics=('miou[own]', 'ece[own]', 'nll[own]'))
  return c
