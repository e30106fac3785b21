"""A long run under mixed traffic and faults, in which every request is accounted for."""
