"""The command that a preparation prints works as it is printed, whatever the images are."""

import shlex

import numpy as np
import pytest

from car_jax import config as configs
from car_jax import loop
from car_jax.commands import train
from car_jax.configs import smoke
from tests.datasets.files import run, write_png


def source(root, count, sides, readers):
  rng = np.random.default_rng(0)
  for i in range(count):
    w, h = sides[i % len(sides)]
    write_png(root / 'images' / f'im{i}.png', rng.integers(0, 256, (h, w, 3)))
    for k in range(readers):
      write_png(root / 'masks' / f'im{i}' / f'{k}.png', 255 * (rng.random((h, w)) < 0.3))
  return root


def printed(out):
  """The arguments of the command in the last line."""
  command = out.strip().splitlines()[-1].removeprefix('next: car-jax ')
  return shlex.split(command)


@pytest.mark.parametrize(
  ('count', 'sides', 'readers', 'more', 'size', 'batch'),
  [
    (10, [(100, 75)], 2, (), 64, 4),
    (4, [(40, 33), (50, 70)], 1, ('--validation', '0', '--test', '0'), 32, 4),
    (1, [(20, 24)], 1, ('--validation', '0', '--test', '0'), 32, 1),
    (3, [(300, 200)], 2, ('--validation', '0', '--test', '0'), 128, 2),
  ],
)
def test_the_next_command_fits_the_data(
  tmp_path, capsys, monkeypatch, count, sides, readers, more, size, batch
):
  """Its data, splits and scores, with a net of seconds in the place of the demo's."""
  folder = source(tmp_path / 's', count, sides, readers)
  assert run('folder', folder, tmp_path / 'my data', *more) == 0
  command, *arguments = printed(capsys.readouterr().out)
  assert command == 'train'
  assert arguments[1] == f'configs/demo.py:{"car" if readers > 1 else "deterministic"}'
  args, rest = train.parse(arguments)
  c = configs.load(args.config, configs.split_overrides(rest))
  assert (c.data.size, c.data.batch, c.data.eval_batch) == (size, batch, batch)
  c.method = configs.complete({'method': smoke.METHODS['supervised'], 'data': {'name': 'fake'}})[
    'method'
  ]
  c.steps = 1
  loop.train(c, tmp_path / 'run')


@pytest.mark.slow
def test_the_next_command_as_it_is_printed(tmp_path, capsys, monkeypatch):
  assert run('folder', source(tmp_path / 's', 10, [(100, 75)], 2), tmp_path / 'd') == 0
  _, *arguments = printed(capsys.readouterr().out)
  monkeypatch.chdir(tmp_path)
  assert train.main([*arguments, '--config.steps=1']) == 0
