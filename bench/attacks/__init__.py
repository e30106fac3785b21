"""Attacks on a gateway of its own, on loopback: what they cost honest requests, and memory."""
