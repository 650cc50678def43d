"""What stays with a process of the memory that it frees, by the system's own counts."""

import ctypes
import mmap
import os
import subprocess
import sys

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

def called(kept):
  global most
  before = pages()
  f(1.0).block_until_ready()
  most = max(most, memory.resident())
  kept.check()
  return pages() - before

with memory.Kept() as kept:
  print(*(called(kept) for _ in range(5)))
  kept.begin(scratch)
  print(*(called(kept) for _ in range(100)))
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
def test_nothing_is_kept_where_there_is_no_room_for_it(monkeypatch):
  changed = []
  monkeypatch.setattr(memory, '_set', changed.append)
  monkeypatch.setattr(memory, 'available', lambda: 2 * memory.SLACK + 299 * MB)
  with memory.Kept() as kept:
    kept.begin(100 * MB)
    kept.check()
    assert not changed
    kept.begin(99 * MB)  # another step, whose scratch is smaller
    kept.begin(99 * MB)
    assert changed == [memory.KEEPING]
  assert changed == [memory.KEEPING, memory.USUAL]


@glibc
def test_what_is_available_is_less_than_there_is_and_more_than_nothing():
  there = os.sysconf('SC_PHYS_PAGES') * mmap.PAGESIZE
  assert 0 < memory.available() < there
  ones = np.ones(256 * MB // 8)
  assert memory.resident() >= ones.nbytes


@glibc
def test_free_memory_is_given_back():
  libc, size, count = ctypes.CDLL(None), 64 << 10, 1600  # pieces that are not mapped one by one
  libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
  libc.free.argtypes = [ctypes.c_void_p]
  pieces = [libc.malloc(size) for _ in range(count)]
  for piece in pieces:
    ctypes.memset(piece, 1, size)
  for piece in pieces[:-1]:  # the last one keeps the heap from shrinking by itself
    libc.free(piece)
  before = memory.resident()
  memory.give_back()
  assert before - memory.resident() > 0.8 * size * count
  libc.free(pieces[-1])
