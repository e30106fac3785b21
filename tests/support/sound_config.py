"""A configuration to break one thing in."""

SOUND = """\
listen: {host: 127.0.0.1, port: 8080}
provider:
  issuer: https://gateway.example
  scopes: [read, write]
  registration: {mode: off}
upstreams:
  app:
    targets: [http://127.0.0.1:3000]
routes:
  - name: app
    match: {path: /app}
    upstream: app
    scopes: [read]
"""
