"""The commands and the example of docs/predict.md run as they stand there."""

import pathlib
import re
import shlex

import numpy as np

from car_jax import __main__ as program
from tests.predict.models import saved, scene, units, write_nifti, write_picture

ROOT = pathlib.Path(__file__).parents[2]


def blocks(page, kind):
  return re.findall(rf'```{kind}\n(.*?)```', (ROOT / page).read_text(), re.DOTALL)


def test_the_page_runs(tmp_path, monkeypatch, capsys):
  saved(tmp_path / 'runs' / 'mose', 'mose')
  for k in range(2):
    write_picture(tmp_path / 'pictures' / f'{k}.png', scene(32, 32, k))
    write_picture(tmp_path / 'labels' / f'{k}.png', scene(32, 32, k)[..., 0] // 128)
  write_nifti(tmp_path / 'scans' / 'v.nii.gz', units(2, 32, 32), np.eye(4))
  monkeypatch.chdir(tmp_path)
  lines = [line for block in blocks('docs/predict.md', 'sh') for line in block.splitlines()]
  assert len(lines) == 6
  for line in lines:
    command, *arguments = shlex.split(line)
    assert command == 'car-jax'
    assert program.main(arguments) == 0, line
  assert (tmp_path / 'predicted' / 'index.html').exists()
  assert (tmp_path / 'scanned' / 'masks' / 'v.nii.gz').exists()
  assert (tmp_path / 'calibrated' / 'masks' / '0.png').exists()
  assert (tmp_path / 'scores' / 'report.html').exists()
  (example,) = blocks('docs/predict.md', 'python')
  capsys.readouterr()
  exec(compile(example, 'predict.md', 'exec'), {})
  shapes = '(100, 120) (8, 100, 120) (100, 120, 2) (100, 120)\n'
  assert capsys.readouterr().out.endswith(shapes)
