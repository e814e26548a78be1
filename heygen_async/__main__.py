"""`python -m heygen_async`: the command line."""

from heygen_async.cli import main

main()
