"""The admin listener: metrics, health, the admin API and the console. Not for the public."""
