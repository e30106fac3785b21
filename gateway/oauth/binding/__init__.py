"""Tokens that are good only with a proof: of a certificate (RFC 8705) or a key (RFC 9449)."""
