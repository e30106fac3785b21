"""The clients' side: sockets, handshakes, connections, requests."""
