"""Runs a model that car-jax exported, with jax and numpy alone.

  python load_exported.py IMAGES.npy OUT.npz     or:  from load_exported import Model
  model = Model('exported'); out = model(images)      uint8 [H, W, 3] or [B, H, W, 3] -> dict

See model.json beside this file on inputs and outputs.
"""

import json
import pathlib
import sys
import zlib

import jax
import numpy as np
from jax import export


class Model:
  def __init__(self, folder=pathlib.Path(__file__).parent):
    folder = pathlib.Path(folder)
    self.about = json.loads((folder / 'model.json').read_text())
    program = export.deserialize(bytearray((folder / 'model.stablehlo').read_bytes()))
    self.arrays = jax.device_put(dict(np.load(folder / 'arrays.npz')))
    self.program = jax.jit(program.call)

  def __call__(self, images, seed=0):
    images = np.asarray(images)
    if images.shape[-1:] == (1,):
      images = np.repeat(images, 3, -1)
    batch = images if images.ndim == 4 else images[None]
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
      grey = 'or for grey ones [B, H, W, 1]: x[..., None]'
      raise ValueError(f'images are {images.dtype} {images.shape}, not uint8 [B, H, W, 3], {grey}')
    keys = np.array([zlib.crc32(x.tobytes()) for x in batch], np.uint32)
    out = jax.device_get(self.program(self.arrays, batch, keys, np.uint32(seed)))
    return out if images.ndim == 4 else {name: x[0] for name, x in out.items()}


if __name__ == '__main__':
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  try:
    np.savez(sys.argv[2], **Model()(np.load(sys.argv[1])))
  except (OSError, ValueError) as e:
    print(f'error: {e}', file=sys.stderr)
    sys.exit(2)
