"""Measures the gateway beside the proxies that people would take instead. See README.md.

It knows the gateway only by its command line and its YAML, as it knows the others. Only
`hot_path` reaches into it, to count instructions where no clock is needed.
"""
