"""car_jax/stopping.py: what Python drops while an object is deleted."""

import subprocess
import sys

LISTENED = """
import sys, types
reported = []
sys.unraisablehook = reported.append
from car_jax import stopping
with stopping.listening():
  pass
with stopping.listening():
  pass
for kind in (KeyboardInterrupt, ValueError):
  sys.unraisablehook(types.SimpleNamespace(exc_type=kind))
print(*(dropped.exc_type.__name__ for dropped in reported))
"""


def test_a_dropped_interrupt_says_nothing_and_the_hook_before_it_says_the_rest():
  done = subprocess.run([sys.executable, '-c', LISTENED], capture_output=True, text=True)
  assert (done.returncode, done.stdout, done.stderr) == (0, 'ValueError\n', '')
