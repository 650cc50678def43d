"""What a preparation made of a source, in a few lines: what a user would otherwise look up."""

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

SHOWN = 3  # names of a kind that are listed; of the others the number is


@dataclasses.dataclass
class Split:
  """Counts of one split: images by readers, by size and channels; pixels by label."""

  readers: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  pixels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))


class Fingerprint:
  """Counts every example as it is written."""

  def __init__(self) -> None:
    self.splits: dict[str, Split] = {}
    self._first: dict[bytes, tuple[str, str]] = {}

  def add(self, split: str, name: str, image: np.ndarray, labels: np.ndarray) -> str:
    """Counts image [H, W, C] with labels [M, H, W].

    Returns 'SPLIT/NAME' of the first example with these very pixels, if that lies in another split
    under another name, else ''. An image of one colour is like any other of that colour.
    """
    seen = self.splits.setdefault(split, Split())
    seen.readers[len(labels)] += 1
    h, w, channels = image.shape
    seen.sizes[f'{w}x{h} {"grey" if channels == 1 else "RGB"}'] += 1
    seen.pixels += np.bincount(labels.ravel(), minlength=256)
    if not np.ptp(image):
      return ''
    key, content = str(image.shape).encode(), np.ascontiguousarray(image).data
    digest = hashlib.blake2b(content, digest_size=16, key=key)
    other, first = self._first.setdefault(digest.digest(), (split, name))
    return f'{other}/{first}' if other != split and first != name else ''

  def lines(self, names: Sequence[str], ignored: int | None, unknown: int | None) -> list[str]:
    """The counts as text. names: of the classes 0, 1, ...; ignored, unknown: their labels."""
    titles = dict(enumerate(names))
    titles |= {k: v for k, v in ((ignored, 'ignored'), (unknown, 'unknown')) if k is not None}
    out = []
    for split, seen in self.splits.items():
      count = seen.readers.total()
      readers = _counted(seen.readers, lambda k: f'{k} reader{"s" * (k != 1)}')
      out.append(
        f'  {split}: {count:,} image{"s" * (count != 1)}; {readers}; {_counted(seen.sizes)}'
      )
      total = max(int(seen.pixels.sum()), 1)
      parts = [f'{t} {_percent(int(seen.pixels[k]), total)}' for k, t in titles.items()]
      out.append(f'    pixels: {", ".join(parts)}')
    everywhere = np.sum([seen.pixels for seen in self.splits.values()], 0)
    empty = [t for k, t in titles.items() if k not in (ignored, unknown) and not everywhere[k]]
    if empty:
      out.append(
        f'  no pixel of {", ".join(empty)} anywhere: see --classes, or the ids of the labels'
      )
    return out


def _percent(count: int, total: int) -> str:
  return f'{100 * count / total:.3g} %' if count else 'none'


def _counted(counter: collections.Counter, name=str) -> str:
  """'3 x 14x10 RGB, 1 x ...': the most frequent ones; alone without the number."""
  common = counter.most_common(SHOWN)
  if len(counter) == 1:
    return name(common[0][0])
  rest = f' and {len(counter) - SHOWN} others' if len(counter) > SHOWN else ''
  return ', '.join(f'{n:,} x {name(k)}' for k, n in common) + rest
