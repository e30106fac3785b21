"""The authorization code grant up to the code: what is asked for, and what is given for it."""
