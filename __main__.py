"""`python -m cytolake` is the command `cytolake`."""

from .cli import main

main()
