"""Reloads the configuration while the gateway runs, as docs/guides/reload.md describes.

`watching` sees that a file has changed, `changes` finds what is different and what can't
change in a running process, `reloader` has one attempt after the other made and accounts
for each.
"""
