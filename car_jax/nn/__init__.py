"""Networks: linen modules, NHWC, one architecture a file."""
