"""A line that says how far long work is, at what rate, and when it will be done."""

import sys
import time
from collections.abc import Callable

from car_jax.meter import duration


def line(
  total: int, *, what: str = 'images', title: str = '', every: float = 10.0, out=None
) -> Callable[[int], None]:
  """-> progress(k): k more of `total` (in units of `what`) are done, of the work called `title`.

  A terminal's line is rewritten, a log gets a line each `every` seconds. The rate leaves out the
  first report, in which compilation falls.
  """
  out = out or sys.stderr
  live = hasattr(out, 'isatty') and out.isatty()
  began = time.perf_counter()
  state = {'done': 0, 'mark': began, 'from': 0, 'shown': 0.0 if live else began}

  def progress(k: int) -> None:
    now = time.perf_counter()
    state['done'] += k
    done = state['done']
    if state['from'] == 0:
      state['mark'], state['from'] = now, done
    rate = (done - state['from']) / max(now - state['mark'], 1e-9)
    ended = done >= total
    if not ended and now - state['shown'] < (0.2 if live else every):
      return
    state['shown'] = now
    text = f'{f"{title}: " if title else ""}{done:,}/{total:,} {what}'
    if ended:
      text += f'  in {duration(now - began)}'
    elif rate > 0:
      text += f'  {rate:.3g} {what}/s  ETA {duration((total - done) / rate)}'
    print(f'\r{text:<70}' if live else text, end='' if live and not ended else '\n', file=out)
    out.flush()

  return progress
