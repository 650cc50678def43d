"""Segmenters and encoders of Hugging Face's transformers: their configs and names -> ours."""
