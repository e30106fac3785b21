"""The data plane: from a request head on one socket to its response from another."""
