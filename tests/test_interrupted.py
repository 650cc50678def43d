"""What is left behind by a command that Ctrl-C ends."""

import os
import subprocess
import sys

import pytest

COMMAND = """
import os, signal, sys, tempfile, zipfile
from car_jax.errors import command_line

def main(arguments):
  with tempfile.TemporaryDirectory(dir=sys.argv[1]):
    {inside}

command_line(main)
"""
WHILE = {
  'computing': 'os.kill(os.getpid(), signal.SIGINT)',
  # A zip file that is closed before its part is: the ValueError hides the interrupt.
  'saving': """with zipfile.ZipFile(sys.argv[1] + '.zip', 'w') as file:
      part = file.open('a', 'w')
      os.kill(os.getpid(), signal.SIGINT)""",
}


@pytest.mark.parametrize('inside', WHILE)
def test_one_word_and_no_temporary_file(tmp_path, inside):
  code = COMMAND.format(inside=WHILE[inside])
  done = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, check=False
  )
  assert (done.returncode, done.stderr) == (130, 'interrupted\n')
  assert not [*tmp_path.iterdir()]


def test_whoever_reads_the_output_is_interrupted_too(tmp_path):
  inside = "print('x'); os.kill(os.getpid(), signal.SIGINT)"
  env = os.environ | {'PYTHONUNBUFFERED': ''}
  command = [sys.executable, '-c', COMMAND.format(inside=inside), str(tmp_path)]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
  ) as done:
    done.stdout.close()
    assert done.stderr.read() == 'interrupted\n'
  assert done.returncode == 130
