"""Loading the configuration anew while the gateway runs; docs/reload.md tells how.

`watching` sees that a file has changed, `changes` tells what is different and what can't
change in a running process, `reloader` has one attempt after the other made and accounts
for each.
"""
