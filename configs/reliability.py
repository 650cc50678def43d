"""Can these segmenters be trusted under shift? Models x sets x calibrators on drawn street scenes.

  make demo-reliability                                  trains the six models, then runs this
  car-jax eval --config configs/reliability.py         the study alone; what is done is skipped
  car-jax eval --config configs/reliability.py --checkpoint mine=runs/mine
  car-jax eval --config configs/reliability.py --predictions FOLDER --labels FOLDER

Weather grows from none (shift 0) to heavy (1) over scenes that are the same, label for label, in
all weathers. Unknown objects stand in half of them. For photographs see
configs/reliability_cityscapes.py.
"""

from ml_collections import ConfigDict

ROOT = 'runs/reliability'
NETS = ('deeplabv3plus', 'segformer', 'bisenetv2', 'setr', 'upernet_swin', 'upernet_convnext')
WEATHERS = ('fog', 'night', 'rain', 'snow')
STRENGTHS = (0.5, 1.0)
HEIGHT, COUNT = 64, 256  # of count scenes a quarter is for testing


def variant(domain='', strength=1.0, unknown=0.5):
  """The name under which car-jax prepare puts street scenes of these options."""
  parts = [f'height{HEIGHT}', f'count{COUNT}', *([f'domain_{domain}'] if domain else [])]
  parts += [f'strength{strength}'] if strength != 1 else []
  return 'street_scenes/' + '-'.join([*parts, f'unknown{unknown}', 'part_test'])


def get_config():
  c = ConfigDict()
  c.title = 'Six small segmenters in worsening weather'
  c.models = {net: f'{ROOT}/{net}' for net in NETS}
  data = dict(data_dir=f'{ROOT}/data', eval_batch=4, eval_size=0)
  sets = {'clear': dict(data=data | dict(name=variant()), role='in-domain', shift=0.0)}
  for domain in WEATHERS:
    for strength in STRENGTHS:
      spec = dict(data=data | dict(name=variant(domain, strength)), condition=domain)
      sets[f'{domain} {100 * strength:.0f} %'] = spec | dict(role='shifted', shift=strength)
  noisy = dict(data=data | dict(name=variant(), corruption='gaussian_noise:3'), role='shifted')
  sets['noise'] = noisy | dict(condition='noise', shift=0.6)
  c.sets = {name: spec | dict(split='test') for name, spec in sets.items()}
  c.pools = {'all weather': tuple(name for name in sets if name not in ('clear', 'noise'))}
  fitted = data | dict(name=f'street_scenes/height{HEIGHT}-count400')
  c.calibrate_on = dict(data=fitted, split='validation')
  kinds = ('temperature', 'ece_grid', 'clusters8', 'selective')
  c.calibrators = dict(zip(kinds, kinds, strict=True))
  c.guarantees = dict(miscoverage10=dict(loss='miscoverage', alpha=0.1))
  return c
