"""Work on another thread: its result, its error, and how soon a signal is obeyed."""

import threading
import time
import types

import jax
import jax.numpy as jnp
import pytest

from car_jax import ahead
from car_jax.interrupt import Interrupt, Stopped


def stop_at(moment: float):
  """An Interrupt whose signal comes at a time."""
  return types.SimpleNamespace(asked=lambda: time.monotonic() >= moment, status=0)


def test_a_program_is_compiled_and_what_fails_is_raised():
  program = ahead.compiled(jax.jit(lambda x: 2 * x), jnp.ones(3), stop=Interrupt(), say=print)
  assert program(jnp.ones(3)).sum() == 6
  with pytest.raises(ZeroDivisionError):
    ahead.awaited(lambda: 1 / 0, stop=Interrupt())


def test_a_signal_is_obeyed_within_seconds_and_what_takes_long_is_said():
  end, lines, begin = threading.Event(), [], time.monotonic()
  work = lambda x: (end.wait(30), x)[1]  # while it is traced
  with pytest.raises(Stopped):
    ahead.compiled(jax.jit(work), jnp.ones(3), stop=stop_at(begin + 1.2), say=lines.append)
  end.set()
  assert time.monotonic() - begin < 5
  assert [line.startswith('compiling') for line in lines] == [True]
