"""Calibration after training: logits -> logits whose softmax can be trusted.

`base.fit(kind, sample)` fits a calibrator to a sample of pixels; `files` keeps it.
"""
