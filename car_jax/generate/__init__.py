"""Latent diffusion: images from text, label maps and masks, with the weights of others."""
