"""`python -m heygen_async.cli`: the command line."""

from heygen_async.cli import main

main()
