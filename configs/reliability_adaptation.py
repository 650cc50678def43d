"""Is an adapted segmenter's confidence adapted too? Source-only, ABN, SAC and an oracle in snow.

  make demo-adapt                                              trains the models, then runs this
  car-jax eval --config configs/reliability_adaptation.py    the study alone

The first seed of each model of configs/sac_street_scenes.py, in clear air, in snow and in fog,
which none of them saw. The temperature is fitted in clear air, where there are labels.
"""

from ml_collections import ConfigDict

from car_jax.configs.sac_street_scenes import ROOT, SOURCE, TARGET

FOG = 'street_scenes/height64-count400-domain_fog-seed1-part_test'
MODELS = {'source-only': 'source', 'ABN': 'abn', 'SAC': 'sac', 'oracle': 'oracle'}


def get_config():
  c = ConfigDict()
  c.title = 'A small segmenter adapted to snow: accuracy and calibration'
  c.models = {name: f'{ROOT}/{run}/seed0' for name, run in MODELS.items()}
  data = dict(data_dir=f'{ROOT}/data', eval_batch=4, eval_size=0)
  named = lambda name: dict(data=data | dict(name=name), split='test')
  c.sets = {
    'clear': named(SOURCE) | dict(role='in-domain', shift=0.0),
    'snow': named(TARGET) | dict(role='shifted', condition='snow', shift=1.0),
    # No `shift`: the figures' arrows lead to the largest, which is to be the target.
    'fog': named(FOG) | dict(role='shifted', condition='fog'),
  }
  c.calibrators = dict(temperature='temperature')
  c.calibrate_on = dict(data=data | dict(name=SOURCE), split='validation')
  return c
