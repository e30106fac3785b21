"""Several processes that serve one port: started, watched, replaced, and counted as one.

A supervisor starts the workers and keeps what there is one of: the listening sockets, the
admin listener, the periodic tasks. Each worker is joined to it by a channel. What one worker
learns that concerns all (a revoked token, a client that failed to authenticate) goes to
the others through the supervisor.

This package knows how to keep a group of processes; what a worker serves is the business
of `gateway.app`.
"""
