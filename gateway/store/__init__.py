"""The persistent stores behind the protocols of `gateway.oauth.models`."""
