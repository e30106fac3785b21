"""Keeps what a gateway did in the last minutes and hours, for the console.

Each process takes a `Slice` of its own counters once in a while, off the request path
(`sampling`); the process with the admin listener adds the slices of all up (`ring`), and
keeps what was out of the ordinary (`events`). Everything is bounded, nothing outlives the
process: for more than a day there is Prometheus.
"""
