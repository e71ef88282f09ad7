"""Small typed wrappers of one model for the languages that apps are written in."""
