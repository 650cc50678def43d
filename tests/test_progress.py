"""The line of progress: a rate and the time left on a terminal, lines in a log."""

import io
import time
import types

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


def test_a_log_has_a_line_every_so_often_and_one_at_the_end(monkeypatch):
  out, clock = io.StringIO(), iter([0.0, 4.0, 11.0, 12.0, 14.0])
  monkeypatch.setattr(progress, 'time', types.SimpleNamespace(perf_counter=lambda: next(clock)))
  done = progress.line(40, title='test', out=out)
  for _ in range(4):
    done(10)
  lines = out.getvalue().splitlines()
  assert [line.partition(' [')[0] for line in lines] == ['test:  50% 20/40', 'test: 100% 40/40']
  assert lines[0].endswith('[00:11<00:11,  1.82 images/s]')


def test_a_slow_rate_is_seconds_of_an_image(monkeypatch):
  out, clock = io.StringIO(), iter([0.0, 3.9])
  monkeypatch.setattr(progress, 'time', types.SimpleNamespace(perf_counter=lambda: next(clock)))
  progress.line(3, out=out)(3)
  assert out.getvalue().endswith('[00:03<00:00,  1.30 s/image]\n')
