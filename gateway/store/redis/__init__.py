"""The shared store of several replicas: Redis, alone, with Sentinel or as a cluster."""
