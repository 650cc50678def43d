"""Masks by networks that are asked for an object by its name. Their packages are optional extras.

  pip install 'car-jax[sam3]'       SAM 3 (keras-hub, on JAX): one network finds and outlines
  pip install 'car-jax[grounded]'   GroundingDINO, then SAM (transformers, torch on the CPU), as
                                    GenVal does (arXiv 2312.09231)

They see the box of the edited picture in RGB; GenVal's code shows them BGR. Its suppression of
overlapping detections and its threshold on words decide nothing, as it uses the surest detection
only: they are left out. Letters: m the box's side.
"""

import functools
import os
from typing import Any

import numpy as np

from car_jax.errors import UserError, package, reason
from car_jax.generate import masks
from car_jax.generate.boxes import Box
from car_jax.generate.masks import Mask
from car_jax.generate.options import MaskOptions


def method(options: MaskOptions) -> masks.Method:
  """The method of config.masks, with its networks. Raises UserError for what is not installed."""
  if options.method == 'difference':
    return functools.partial(masks.difference, grabcut=options.grabcut)
  made = {'sam3': Sam3, 'grounded': Grounded}[options.method](options)
  return functools.partial(mask_in_box, made, swapped=options.swapped_channels)


def mask_in_box(
  network: Any, scene: np.ndarray, edited: np.ndarray, box: Box, name: str, *, swapped: bool
) -> Mask:
  """What the network finds in the box of the edited picture."""
  crop = np.ascontiguousarray(box.inside(edited))
  score, inner = network(np.ascontiguousarray(crop[..., ::-1]) if swapped else crop, name)
  if inner is None:
    text = f'no {name} found: {score:.2f}, expected {network.least:g}'
    return Mask(None, score, text)
  return masks.accepted(inner, scene, box, score)


def optional(name: str, extra: str) -> Any:
  """A package of the masks' method that the extra is called by. Raises UserError without it."""
  without = ', or --config.masks.method=difference'
  return package(name, extra, f'config.masks.method={extra}', without)


def pretrained(key: str, place: str, load: Any) -> Any:
  """load(place). Raises UserError, which names the option `key`, for whatever goes wrong there."""
  try:
    return load(place)
  except Exception as e:
    raise UserError(
      f'config.masks.{key}: {place} cannot be loaded ({reason(e)})\n'
      '  name a folder with its weights; see docs/generate.md'
    ) from None


class Sam3:
  """SAM 3 by keras-hub's SAM3PromptableConceptImageSegmenter."""

  def __init__(self, options: MaskOptions):
    os.environ.setdefault('KERAS_BACKEND', 'jax')
    models = optional('keras_hub', 'sam3').models
    kind = models.SAM3PromptableConceptImageSegmenter
    self.segmenter = pretrained('sam3', options.sam3, kind.from_preset)
    self.least = options.least_score

  def __call__(self, crop: np.ndarray, name: str) -> tuple[float, np.ndarray | None]:
    """crop uint8 [m, m, 3] -> the best score, and that query's mask bool [m, m]."""
    import cv2

    inputs = dict(images=crop[None].astype(np.float32), prompts=[name])
    out = {k: np.asarray(v)[0] for k, v in self.segmenter.predict(inputs, verbose=0).items()}
    best = int(np.argmax(out['scores']))
    score = float(out['scores'].reshape(-1)[best])
    if score < self.least:
      return score, None
    share = np.asarray(out['masks'][best], np.float32)
    return score, cv2.resize(share, crop.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0.5


class Grounded:
  """GroundingDINO's surest box, and of SAM's three masks of that the best."""

  def __init__(self, options: MaskOptions):
    self.torch = optional('torch', 'grounded')
    models = optional('transformers', 'grounded')
    inputs = models.AutoProcessor.from_pretrained
    self.detector_inputs = pretrained('detector', options.detector, inputs)
    self.segmenter_inputs = pretrained('segmenter', options.segmenter, inputs)
    detector, segmenter = models.GroundingDinoForObjectDetection, models.SamModel
    self.detector = pretrained('detector', options.detector, detector.from_pretrained).eval()
    self.segmenter = pretrained('segmenter', options.segmenter, segmenter.from_pretrained).eval()
    self.least = options.box_threshold

  def __call__(self, crop: np.ndarray, name: str) -> tuple[float, np.ndarray | None]:
    """crop uint8 [m, m, 3] -> confidence of the detection, and its mask bool [m, m]."""
    with self.torch.no_grad():
      score, corners = self._detected(crop, name)
      return score, None if score < self.least else self._outlined(crop, corners)

  def _detected(self, crop: np.ndarray, name: str) -> tuple[float, list[float]]:
    """-> confidence of the surest box, and its left, top, right and bottom in pixels."""
    inputs = self.detector_inputs(images=crop, text=f'{name.lower()}.', return_tensors='pt')
    out = self.detector(**inputs)
    sure = self.torch.sigmoid(out.logits[0]).max(-1).values
    best = int(sure.argmax())
    x, y, wide, high = (float(v) for v in out.pred_boxes[0, best])
    (rows, columns), half = crop.shape[:2], 0.5
    corners = [x - half * wide, y - half * high, x + half * wide, y + half * high]
    return float(sure[best]), [v * n for v, n in zip(corners, (columns, rows) * 2, strict=True)]

  def _outlined(self, crop: np.ndarray, corners: list[float]) -> np.ndarray:
    inputs = self.segmenter_inputs(images=crop, input_boxes=[[corners]], return_tensors='pt')
    out = self.segmenter(**inputs, multimask_output=True)
    sizes = inputs['original_sizes'], inputs['reshaped_input_sizes']
    (three,) = self.segmenter_inputs.post_process_masks(out.pred_masks, *sizes)[0]
    return np.asarray(three[int(out.iou_scores[0, 0].argmax())], bool)
