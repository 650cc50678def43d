"""What the C library does with memory that steps free: on CPUs it decides over much of their time.

XLA's CPU backend takes the scratch of a program in one block and frees it at the end. glibc returns
a block of over 32 MB to the system at once, and the system clears its pages anew for the next step.
docs/performance.md has what that costs. Where the C library is another one, nothing here happens.
"""

import contextlib
import ctypes
import functools
import mmap
import pathlib
import sys
import threading
from collections.abc import Iterator

# Of glibc's malloc.h: heaps, blocks that have no part in a heap, free bytes at a heap's end that
# are given back at once. What is not set adapts itself, up to 32 MB.
ARENA_MAX, MMAP_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -4, -3, -1
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 << 20, TRIM_THRESHOLD: 64 << 20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: -1}  # -1: never
SLACK = 512 << 20  # bytes that a process may grow by, so that small scratch may have several places
PERIOD = 0.03  # seconds, in which a core fills 50 MB


def one_heap() -> None:
  """For the start of a process that trains, before it has threads, whose heaps hold 64 MB each."""
  _set({ARENA_MAX: 1})


def give_back() -> None:
  """Gives memory that is free to the system.

  Of what compiling takes glibc keeps pieces that are too small for the scratch of a step.
  """
  if libc := _glibc():
    libc.malloc_trim(0)


@contextlib.contextmanager
def kept() -> Iterator[None]:
  """Inside, what is freed stays with this process for whatever comes next.

  Now and then a small block comes to lie where a step's scratch was, which then takes another
  place. So a thread looks at the process's size: it gives back what is free once there is SLACK
  more than was ever in use, while the other place is still being filled.
  """
  if not _glibc() or available() < 2 * SLACK:
    yield
    return
  _set(KEEPING)
  ended = threading.Event()
  threading.Thread(target=_watch, args=(resident() + SLACK, ended), daemon=True).start()
  try:
    yield
  finally:
    ended.set()
    _set(USUAL)  # from now on the system gets blocks that found no place in the heap
    give_back()


def _watch(limit: int, ended: threading.Event) -> None:
  while not ended.wait(PERIOD):
    if resident() > limit:
      give_back()
      limit = max(limit, resident() + SLACK)


def resident() -> int:
  """Bytes of this process that are in memory, on Linux."""
  return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * mmap.PAGESIZE


def available() -> int:
  """Bytes that processes can still take on this machine, or in this container, on Linux."""
  lines = (line.split() for line in pathlib.Path('/proc/meminfo').read_text().splitlines())
  machine = next(int(kib) << 10 for name, kib, *_ in lines if name == 'MemAvailable:')
  group = pathlib.Path('/sys/fs/cgroup')
  with contextlib.suppress(OSError, ValueError):  # no such group, or 'max'
    limit, used = (int((group / f'memory.{x}').read_text()) for x in ('max', 'current'))
    return min(machine, limit - used)
  return machine


def _set(parameters: dict[int, int]) -> None:
  if libc := _glibc():
    for name, value in parameters.items():
      libc.mallopt(name, value)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
  if sys.platform == 'linux' and hasattr(libc := ctypes.CDLL(None), 'malloc_trim'):
    return libc
  return None
