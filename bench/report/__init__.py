"""Results for people: on the terminal, in docs/explanation/performance.md, and as a plot."""
