"""The composition root: the one place that knows the configuration and everything else.

Nothing is imported here, because a worker needs little of it and is started in a hurry.
"""
