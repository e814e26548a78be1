"""The whole client in one process, under one seed, in virtual time, with crashes, while its promises are checked.

    python -m tests.simulation --seeds 0:100000 --workers 2
    python -m tests.simulation --seed 4711 --trace
    python -m tests.simulation --mutants

What is real: the session, driver, retries, gate, poller, media, bulk program, executor and journal, aiohttp down to the
bytes of a connection, SQLite, and a folder of real files. What is simulated: the network and the service (`network`,
`server`, `contents`), time and threads (`universe`, `edges`), failures of the disk (`disk`), people (`author`), other
workers (`workers`), and the death of the process. One run in ten is a cluster (`cluster`): its workers, scheduler and
statements are real, and PostgreSQL and the engine are simulated (`tables`).

A run has about 12 rows, one to three lives of the client with faults, and calm lives until all is done.
`scenarios_by_seed` and `fault_kinds` make the `scenario` of a seed, which says what happens; `lives` and `happenings`
let it happen, `invariants` judges it, and `shrinking` finds the shortest list of faults that still breaks a promise.
`mutants` plants bugs into the client, which must be found.

What the model leaves out: a server that forgets a key before 24 hours, lags of hours, 4xx answers after the work was
done, a proxy that repeats a request after it was refused, torn writes inside of SQLite (which writes its journal to
memory here), machines that are suspended between two instructions of a check and its request, connections that survive
a suspend while they are made, processes that run at the same time on different clocks, jobs that people delete,
rejected rows that are made again, and a new journal for rows that were sent in the other way, each or in batches.
"""
