"""The data plane: from a request head on one socket to its answer from another."""
