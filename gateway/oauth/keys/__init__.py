"""Keys: our own that sign tokens, and those of others that we verify by."""
