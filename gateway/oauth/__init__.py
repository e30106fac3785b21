"""The OAuth 2.0 provider: clients, tokens and their validation. It knows no sockets."""
