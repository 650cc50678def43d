"""What stays with a process of the memory that it frees, by the system's own counts."""

import ctypes
import mmap
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from car_jax import memory

glibc = pytest.mark.skipif(sys.platform != 'linux', reason="glibc's")
MB = 1 << 20
# A program that needs 64 MB between what goes in and out: prints the pages that each of some calls
# got from the system, and of some with memory kept; then by how much the process grew.
PROGRAM = """
import resource
from car_jax import memory
memory.one_heap()
import jax, jax.numpy as jnp

v = jnp.ones(1 << 12)
f = jax.jit(lambda x: jnp.outer(v + x, v) @ v).lower(1.0).compile()
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
scratch = f.memory_analysis().temp_size_in_bytes
assert 64 << 20 <= scratch < 65 << 20
start, most = memory.resident(), 0

def called():
  global most
  before = pages()
  f(1.0).block_until_ready()
  most = max(most, memory.resident())
  return pages() - before

print(*(called() for _ in range(5)))
with memory.kept():
  print(*(called() for _ in range(100)))
print(most - start)
"""


@glibc
def test_scratch_stays_for_the_next_step_and_little_else_does():
  mine = {k: v for k, v in os.environ.items() if not k.startswith('MALLOC_')}
  command = [sys.executable, '-c', PROGRAM]
  out = subprocess.run(command, env=mine, check=True, capture_output=True, text=True).stdout
  usual, kept, (grown,) = ([int(word) for word in line.split()] for line in out.splitlines())
  of_scratch = 64 * MB // mmap.PAGESIZE
  assert sum(count > of_scratch / 2 for count in kept) < 50
  assert min(usual[1:]) >= of_scratch
  assert grown < 2 * 64 * MB + memory.SLACK + 16 * MB


@glibc
@pytest.mark.parametrize(('room', 'expected'), [(-1, []), (0, [memory.KEEPING, memory.USUAL])])
def test_nothing_is_kept_where_there_is_no_room_for_it(room, expected, monkeypatch):
  changed = []
  monkeypatch.setattr(memory, '_set', changed.append)
  monkeypatch.setattr(memory, 'available', lambda: 2 * memory.SLACK + room)
  with memory.kept():
    pass
  assert changed == expected


@glibc
def test_what_is_available_is_less_than_there_is_and_more_than_nothing():
  there = os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE
  assert 0 < memory.available() < there
  ones = np.ones(256 * MB // 8)
  assert memory.resident() >= ones.nbytes


@pytest.fixture
def pieces():
  """Frees 100 MB of memory whose end is in use, so that the heap does not shrink by itself."""
  libc, size, count = ctypes.CDLL(None), 64 << 10, 1600  # pieces that are not mapped one by one
  libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
  libc.free.argtypes = [ctypes.c_void_p]
  pieces = [libc.malloc(size) for _ in range(count)]
  for piece in pieces:
    ctypes.memset(piece, 1, size)

  def freed():
    for piece in pieces[:-1]:
      libc.free(piece)
    return size * count

  yield freed
  libc.free(pieces[-1])


@glibc
def test_free_memory_is_given_back(pieces):
  before, size = memory.resident(), pieces()
  memory.give_back()
  assert before - memory.resident() > 0.8 * size


@glibc
def test_what_is_kept_is_given_back_once_the_process_grows_beside_it(monkeypatch, pieces):
  monkeypatch.setattr(memory, 'SLACK', 64 * MB)
  with memory.kept():
    before, freed = memory.resident(), pieces()
    time.sleep(4 * memory.PERIOD)
    assert before - memory.resident() < 0.2 * freed
    beside = np.ones(2 * freed // 8)  # which has no room where the pieces were
    growth, deadline = lambda: memory.resident() - before, time.monotonic() + 20
    while growth() > 1.2 * freed and time.monotonic() < deadline:
      time.sleep(memory.PERIOD)
    assert 0.8 * freed < growth() < 1.2 * freed
    del beside
