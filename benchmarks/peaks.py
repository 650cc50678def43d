"""What accelerators do in a second by their makers' data sheets, without sparsity.

float32 is what jax multiplies float32 matrices in unless told otherwise: TF32 on NVIDIA's, bfloat16
on TPUs. Sources: NVIDIA's data sheets of each card (A100, June 2021; H100, 2023; H200, 2024; L4 and
L40S, 2023), whose figures with sparsity are halved; cloud.google.com/tpu/docs, the page of each
version. Of a TPU that is one chip, which is one device from v4 on.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Peak:
  """TFLOP/s by type, and TB/s of memory. kinds: how jax's device_kind begins, in lower case."""

  name: str
  float32: float
  bfloat16: float
  bandwidth: float
  kinds: tuple[str, ...]

  def flops(self, dtype: str) -> float:
    """Operations a second."""
    return 1e12 * {'float32': self.float32, 'bfloat16': self.bfloat16}[dtype]


PEAKS = (
  Peak('H200', 495, 989, 4.8, ('nvidia h200',)),
  Peak('H100 PCIe', 378, 756, 2.0, ('nvidia h100 pcie',)),
  Peak('H100 SXM', 495, 989, 3.35, ('nvidia h100 80gb hbm3',)),
  Peak('A100 80 GB', 156, 312, 2.0, ('nvidia a100-sxm4-80gb', 'nvidia a100 80gb')),
  Peak('A100 40 GB', 156, 312, 1.55, ('nvidia a100-sxm4-40gb', 'nvidia a100-pcie-40gb')),
  Peak('L40S', 183, 362, 0.86, ('nvidia l40s',)),
  Peak('L4', 60, 121, 0.3, ('nvidia l4',)),
  Peak('TPU v6e', 918, 918, 1.64, ('tpu v6 lite', 'tpu v6e')),
  Peak('TPU v5e', 197, 197, 0.819, ('tpu v5 lite', 'tpu v5e')),
  Peak('TPU v5p', 459, 459, 2.765, ('tpu v5p', 'tpu v5')),
  Peak('TPU v4', 275, 275, 1.2, ('tpu v4',)),
)
NAMED = {peak.name: peak for peak in PEAKS}


def of(device: Any) -> Peak | None:
  """Of a jax device; None for one that the table does not have."""
  kind = device.device_kind.lower()
  return next((peak for peak in PEAKS if kind.startswith(peak.kinds)), None)
