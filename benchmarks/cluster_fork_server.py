"""A process that has imported everything, and forks workers of a cluster: they start at once, and end with it.

It reads a JSON object a line, `{"argv": [...], "env": {...}, "log": PATH}`, and answers with the process id.
"""

import json
import os
import signal
import sys

import heygen_async.bulk.cluster
import heygen_async.cli.app
import heygen_async.cli.cluster_commands


def become_worker(argv: list[str], env: dict[str, str], log: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w")  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w")  # type: ignore[misc]
    heygen_async.cli.main(argv)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps them
    children = []
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            try:
                become_worker(order["argv"], order["env"], order["log"])
            finally:
                os._exit(70)
        children.append(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
