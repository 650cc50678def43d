"""Training methods: one file each, speaking the protocol of `base`."""
