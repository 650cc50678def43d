"""Every recorded value of the published code is met; and a value that is not is told."""

import pathlib

import numpy as np
import pytest

from tests import replay
from tests.replay.__main__ import main

GOLDEN = pathlib.Path('tests/golden')
FILES = sorted(GOLDEN.glob('*/*.npz'))
# of what takes long, what unit tests of the method see too, by oracles of their own
SLOW = {'car': ('train_step_lidc', 'train_step_cityscapes', 'discriminator', 'segnet_train_bn')}
SLOW['car'] += ('deeplabv3',)  # deeplabv3plus_bottleneck has its backbone
# train_city_soft has a whole step: cost, plan, groups, gradients, update
SLOW['mose'] = (
  'loss',
  'train_steps',
  'train_lidc_full',
  'metrics',
  'coupling',
  'forward_city_light',
)
SLOW['nets'] = ('segformer_mmseg', 'deeplabv3plus_basic')  # their siblings are replayed
# tests/methods sees their formulas on nets of two levels
SLOW['families'] = ('prob_unet', 'prob_unet_multiclass', 'ssn_unet_binary', 'phiseg')
SLOW['families'] += ('ccdm_unet', 'flow_matching_medfm', 'flow_matching_atfm')
SLOW['relis'] = ('lts',)  # lts_train runs the same net
SLOW['genval'] = ('unet4', 'unet9', 'controlnet', 'vae', 'controlnet_train', 'cldm')
SLOW['genval'] += ('pipeline_controlnet', 'pipeline_inpaint')  # diffusers' pipeline is replayed
SLOW['sac'] = (
  'abn_steps',
  'sac_steps',
  'forward_fcn_vgg16',
  'forward_resnet101',
  'target_aug',
  'source_aug',
)


def case(path):
  marks = [pytest.mark.slow] if path.stem in SLOW.get(path.parent.name, ()) else []
  return pytest.param(path, marks=marks, id=f'{path.parent.name}-{path.stem}')


# recorded temperatures may lie at the end of their grid
@pytest.mark.filterwarnings('ignore::car_jax.calibrate.base.CalibrationWarning')
@pytest.mark.parametrize('path', [*map(case, FILES)])
def test_recorded_values(path):
  rows = replay.run(path.parent.name, path.parent, path.stem)
  assert rows
  assert [f'{r.key}: {r.error:.3g} > {r.tolerance:.3g}' for r in rows if not r.ok] == []


def test_a_wrong_value_or_a_new_key_is_a_miss(tmp_path, capsys):
  arrays = dict(np.load(GOLDEN / 'car' / 'checkpoint_tiny.npz'))
  for path in (GOLDEN / 'car').glob('checkpoint_tiny*'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  assert main(['car', str(tmp_path)]) == 0
  assert capsys.readouterr().out.splitlines()[-1].endswith(' passed, 0 failed')
  np.savez(tmp_path / 'checkpoint_tiny.npz', **arrays, something_new=np.zeros(2))
  assert main(['car', str(tmp_path)]) == 1
  out = capsys.readouterr().out
  assert 'something_new inf 0 MISS' in out
  assert out.splitlines()[-1].endswith(' passed, 1 failed')


def test_a_folder_without_golden_files(tmp_path, capsys):
  assert main(['car', str(tmp_path)]) == 2
  assert 'usage' in capsys.readouterr().err
