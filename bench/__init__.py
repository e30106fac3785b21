"""Measures the gateway beside the proxies that people would take instead. See README.md.

It knows the gateway only by its command line and its YAML, as they know the others.
"""
