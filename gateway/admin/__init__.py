"""The admin listener: metrics, health and the client API."""
