"""Workloads: clients that prove who they are by what their platform gives them."""
