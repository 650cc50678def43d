"""What tests of both commands share: the tiny weights, a command, what is in a folder."""

import functools
import re
from typing import Any

import pytest

from car_jax.datasets.street_scenes import procedural
from car_jax.datasets.street_scenes import street_scenes_dataset_builder as builder
from car_jax.generate import __main__ as command
from car_jax.generate import tiny
from tests.generate.test_records import content

__all__ = ['content', 'drawn', 'one_program', 'run', 'scene', 'weights']


@functools.cache
def drawn(height: int, k: int) -> Any:
  """CITY/NAME, image and label ids of a scene that the configs :tiny choose from."""
  return procedural.Drawn(0, height, 20).scene(k)


def scene(name: str, height: int) -> Any:
  """Image and label ids of the scene that is called so."""
  (k,) = [k for k in range(20) if '/'.join(builder.name('test', k)) == name]
  return drawn(height, k)[1:]


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  folder = tmp_path_factory.mktemp('weights')
  tiny.write(folder)
  return folder


def one_program(cls):
  """A fixture: every run of a module makes its images with the programs of the first.

  Its value is what reads the weights otherwise.
  """

  @pytest.fixture(scope='module', autouse=True)
  def loaded_once():
    loaded, kept = cls.loaded, []

    def again(self, stop):
      if not kept:
        kept.append(loaded(self, stop))
      (size, make), *_ = kept
      return size, functools.partial(self.make, *make.args)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(cls, 'loaded', again)
      yield loaded

  return loaded_once


def run(kind, out, weights, *arguments):
  """car-jax generate, with small pictures of small scenes -> exit status."""
  folders = {'style': ('sd', 'controlnet'), 'ood': ('inpaint',)}[kind]
  keys = ('weights', 'controlnet')[: len(folders)]
  given = [f'--config.{k}={weights / name}' for k, name in zip(keys, folders, strict=True)]
  small = ['--config.scenes.height=32', '--config.size=32', '--config.steps=2']
  config = f'configs/genval_{kind}.py:tiny'
  return command.main([kind, '--config', config, '--out', str(out), *given, *small, *arguments])


def check_refused(status, out, message, capsys):
  """A command that ended with `status` said what is wrong and has written nothing."""
  assert status == 2
  err = capsys.readouterr().err
  assert re.search(message, err), err
  assert not out.exists()
