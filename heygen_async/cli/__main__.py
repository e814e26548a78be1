"""`python -m heygen_async.cli`, where the script is not on the path."""

from heygen_async.cli import main

main()
