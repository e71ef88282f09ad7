"""`--target`: what a file for a runtime other than the Interpreter must be, and how it is checked."""
