"""Results for people: on the terminal, in docs/performance.md, and as a plot."""
