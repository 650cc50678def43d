"""Does the score on generated images predict that on real ones? Eight segmenters, drawn scenes.

  make demo-genval                                        makes all of it, then runs this
  car-jax eval --config configs/reliability_generated.py --out runs/genval/study   the study alone

Four nets, each after a short and after its whole training. The generated sets are those of `python
-m car_jax.generate procedural`; what stands for real shift is street_scenes' own weather and
objects, of other scenes and weaker. Both come from the same drawing code: the demo shows the way,
and proves nothing of diffusion models or of photographs.
"""

from ml_collections import ConfigDict

ROOT = 'runs/genval'
WEATHERS = ('fog', 'night', 'rain', 'snow')
HEIGHT, COUNT, REAL_COUNT = 64, 256, 192  # of count scenes a quarter is for testing
TRAINED = f'street_scenes/height{HEIGHT}-count{COUNT}'
STEPS = (100, 400)
NETS = ('deeplabv3plus', 'segformer', 'fcn8s', 'deeplabv2')
STANDS_IN = 'it stands in for real shift'
REAL = f'street_scenes/height{HEIGHT}-count{REAL_COUNT}'


def get_config():
  c = ConfigDict(allow_dotted_keys=True)
  c.title = 'Generated shift against drawn shift, eight small segmenters'
  c.models = {
    f'{net} {steps}': dict(path=f'{ROOT}/{net}', step=steps) for net in NETS for steps in STEPS
  }
  data = dict(data_dir=f'{ROOT}/data', eval_batch=8, eval_size=0)
  named = lambda name, split='test': dict(data=data | dict(name=name), split=split)
  c.sets = {'clear': named(TRAINED) | dict(role='in-domain')}
  for k in WEATHERS:
    c.sets[f'generated {k}'] = named('generated_scenes', k) | dict(condition=k)
    weather = f'{REAL}-domain_{k}-strength0.7-seed1-part_test'
    c.sets[f'real {k}'] = named(weather) | dict(condition=k, about=f'drawn {k}: {STANDS_IN}')
  c.sets['generated objects'] = named('generated_objects') | dict(condition='objects')
  about = dict(condition='objects', about=f'drawn objects: {STANDS_IN}')
  c.sets['real objects'] = named(f'{REAL}-seed1-unknown1-part_test') | about
  both = lambda *names: dict(
    synthetic=tuple(f'generated {k}' for k in names), real=tuple(f'real {k}' for k in names)
  )
  c.correlations = {
    'weather': both(*WEATHERS) | dict(measures=('miou', 'ece')),
    'objects': both('objects') | dict(measures=('unknown_auroc', 'unknown_auroc[max_logit]')),
  }
  c.worst = 2
  return c
