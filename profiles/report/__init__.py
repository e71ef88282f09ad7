"""Ways to show a profile: a table for the terminal, a JSON document with every sample."""
