"""The line of progress: a rate and the time left on a terminal, nothing in a file."""

import io
import time

from car_jax import progress


class Terminal(io.StringIO):
  isatty = lambda self: True


def test_a_terminal_sees_rate_and_time_left_also_of_slow_work():
  out = Terminal()
  done = progress.line(3, what='scenes', title='drawn', out=out)
  for _ in range(3):
    time.sleep(0.15)
    done(1)
  text = out.getvalue()
  assert 'drawn' in text
  assert '3/3' in text
  assert 'scenes/s' in text
  assert '<' in text  # 00:00<00:01, spent and left
  assert text.endswith('\n')


def test_a_file_stays_empty():
  out = io.StringIO()
  done = progress.line(2, out=out)
  done(2)
  assert out.getvalue() == ''
