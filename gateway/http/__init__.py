"""HTTP as the RFCs define it: targets, heads, bodies, errors. Knows no gateway."""
