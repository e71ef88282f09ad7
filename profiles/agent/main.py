"""The program: `agent.pyz` serves; `keep` and `install` are what a remote host needs besides."""

from __future__ import annotations

import sys

from .messages import AgentError


def main() -> None:
    """Runs the command of argv: none serves requests about a model."""
    command, *rest = sys.argv[1:] or ["serve"]
    if command == "serve":
        # Before numpy and interpreters are imported: what is imported here is imported twice.
        from . import layout

        layout.fix()
        from .serve import Agent, serve

        serve(Agent())
    elif command == "keep":
        from .keeper import keep

        keep(*rest)
    elif command == "install":
        from .installer import install

        try:
            install(*rest)
        except AgentError as error:
            print(error, file=sys.stderr)
            sys.exit(1)
    else:
        sys.exit(f"the agent has no command '{command}'")
