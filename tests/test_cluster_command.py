"""`heygen-async cluster`: its commands as processes."""

import csv
import os
import signal

import orjson
import psycopg
import pytest

pytest.importorskip("cyclopts", reason="the command line is an extra")

from cli_sandbox import needs_dev_full, run, running, start, until

VIDEO = "https://sandbox.invalid/v{}.mp4"
AUDIO = "https://example.com/new.mp3"


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "episodes.csv"
    lines = [f"{VIDEO.format(number)},{AUDIO},row-{number}" for number in range(1, 5)]
    path.write_text("\n".join(["video,audio,key", *lines]))
    return path


@pytest.fixture
def cluster(database_url, tmp_path):
    """Run a command of the cluster."""

    def call(*argv, **options):
        env = {"HEYGEN_DATABASE_URL": database_url, **options.pop("env", {})}
        return run("cluster", *argv, env=env, **options)

    return call


@pytest.fixture
def sandbox():
    with running(speed=100, balance=1e6) as one:
        yield one


def test_rows_go_from_the_manifest_to_files_and_a_report(cluster, sandbox, manifest, tmp_path, database_url):
    first = cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    again = cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    assert (first.code, again.code) == (0, 0)
    assert (first.answer["added"], again.answer["added"]) == (4, 0)
    assert first.answer["run"] == "episodes.csv"
    assert first.answer["budget"] is None

    with start(
        "cluster", "worker", "--poll-every", "0.05", sandbox=sandbox, env={"HEYGEN_DATABASE_URL": database_url}
    ) as worker:
        watched = cluster("status", "--watch")
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=20)
    assert worker.returncode == 143
    assert "Traceback" not in err
    assert watched.code == 0
    assert watched.answers[-1]["complete"] is True
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == [f"row-{n}.mp4" for n in range(1, 5)]

    for _ in range(2):  # the second replaces the first
        assert cluster("report", tmp_path / "r.csv").answer == {"type": "report", "path": str(tmp_path / "r.csv")}
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["completed"] * 4
    assert cluster("retry-failed").answer == {"type": "retried", "rows": 0}
    assert cluster("prune", "--older-than", "0.001").answer == {"type": "pruned", "runs": 1}


def test_outputs_of_a_manifest_from_a_pipe_are_in_the_current_folder(cluster, sandbox, tmp_path):
    line = f'{{"video": "{VIDEO.format(1)}", "audio": "{AUDIO}", "output": "one.mp4", "key": "a"}}'
    script = 'printf \'%s\' "$1" | "${@:2}"'
    (tmp_path / "one.mp4").mkdir()
    piped = {"prefix": ("bash", "-c", script, "bash", line), "cwd": tmp_path}
    ran = cluster("enqueue", "/dev/stdin", sandbox=sandbox, **piped)

    assert ran.error["problems"] == [{"place": "line 1, output", "message": "cannot write one.mp4: it is a folder"}]


def test_a_manifest_whose_name_is_not_utf_8_is_misuse(cluster, sandbox, manifest):
    ran = cluster("enqueue", manifest.rename(manifest.with_name("caf\udce9.csv")), sandbox=sandbox)

    assert (ran.code, ran.out) == (2, "")
    assert ran.error["message"].endswith("is not UTF-8: rename it")


def test_a_report_replaces_no_other_file(cluster, sandbox, manifest, tmp_path):
    before = manifest.read_bytes()
    assert cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox).code == 0
    ran = cluster("report", manifest)

    assert (ran.code, ran.out, manifest.read_bytes()) == (2, "", before)
    assert f"{manifest} exists and is not a report of a run" in ran.error["message"]


def test_a_report_replaces_no_device(cluster, sandbox, manifest, tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    assert cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox).code == 0
    ran = cluster("report", tmp_path / "null")

    assert (ran.code, ran.out, (tmp_path / "null").is_symlink()) == (2, "", True)
    assert "is not a report of a run: move it away, or give another file" in ran.error["message"]


def test_a_watch_ends_when_its_reader_has_left(cluster, sandbox, manifest, tmp_path, database_url):
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    script = '"$@" | head -1; exit "${PIPESTATUS[0]}"'
    argv = ("cluster", "status", "--watch")
    with start(*argv, prefix=("bash", "-c", script, "bash"), env={"HEYGEN_DATABASE_URL": database_url}) as process:
        out, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")
    assert orjson.loads(out)["complete"] is False


def test_a_watch_outlives_its_connection_to_the_database(cluster, sandbox, manifest, tmp_path, database_url):
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    with (
        start("cluster", "status", "--watch", env={"HEYGEN_DATABASE_URL": database_url}) as process,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        assert orjson.loads(process.stdout.readline())["complete"] is False
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'heygen-async'"
        )
        assert process.stderr.readline().startswith("waiting for the database: ")
        connection.execute("UPDATE heygen.rows SET stage = 'done'")
        out, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (0, "")
    assert orjson.loads(out.splitlines()[-1])["complete"] is True


@pytest.mark.parametrize("stage", ["failed", "skipped"])
def test_a_watch_of_rows_that_have_not_all_been_done_ends_with_exit_code_1(stage, cluster, manifest, database_url):
    cluster("enqueue", manifest, env={"HEYGEN_BASE_URL": "http://127.0.0.1:1"})
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE heygen.rows SET stage = 'done'")
        connection.execute("UPDATE heygen.rows SET stage = %s WHERE key = 'row-1'", (stage,))

    assert (cluster("status").code, cluster("status", "--watch").code) == (0, 1)


@needs_dev_full
@pytest.mark.parametrize("flags", [(), ("--json",)], ids=str)
def test_a_watch_whose_output_cannot_be_written_ends(flags, cluster, manifest, tmp_path):
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", env={"HEYGEN_BASE_URL": "http://127.0.0.1:1"})
    with open("/dev/full", "wb") as full:  # noqa: PTH123 a descriptor is wanted
        found = cluster("status", "--watch", *flags, stdout=full)

    assert found.code == 1
    assert "standard output" in found.error["message"]


def test_bad_rows_are_listed_with_their_places_and_nothing_is_enqueued(cluster, sandbox, manifest, tmp_path):
    with manifest.open("a") as file:
        file.write(f"\nhttps://example.com/v.mp4?X-Amz-Signature=abc123,{AUDIO},signed\nnone.mp4,{AUDIO},missing\n")
    found = cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)

    assert found.code == 2
    assert found.error["code"] == "bad_rows"
    assert [one["place"] for one in found.error["problems"]] == ["line 6, video", "line 7, video"]
    assert "abc123" not in found.err
    assert cluster("status").answer["runs"] == []
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_not_there_is_an_error_of_every_command_that_names_one(cluster, sandbox, manifest, tmp_path):
    assert cluster("retry-failed").answer == {"type": "retried", "rows": 0}
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    for words in (["retry-failed", "--run", "nope"], ["report", tmp_path / "r.csv", "--run", "nope"]):
        found = cluster(*words)
        assert (found.code, found.error["message"]) == (1, "there is no run nope")
    assert cluster("retry-failed", "--run", "episodes.csv").answer == {"type": "retried", "rows": 0}


def test_runs_of_one_name_are_told_apart_by_the_address_of_their_api(cluster, sandbox, manifest, tmp_path):
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    other = tmp_path / "other"
    other.mkdir()
    (other / manifest.name).write_text(f"video,audio,key\n{VIDEO.format(9)},{AUDIO},row-9")
    elsewhere = ("--base-url", "http://127.0.0.1:1")
    cluster("enqueue", other / manifest.name, "--output-dir", tmp_path / "out", *elsewhere)

    unclear = cluster("report", tmp_path / "r.csv", "--run", manifest.name)
    said = "there are several runs: give --run, and --base-url if others have its name: "
    assert (unclear.code, unclear.error["message"].startswith(said)) == (1, True)
    assert cluster("report", tmp_path / "r.csv", "--run", manifest.name, *elsewhere).code == 0
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["row-9"]
    assert cluster("retry-failed", *elsewhere).answer == {"type": "retried", "rows": 0}


def test_the_password_of_the_database_is_never_shown(cluster, database_url):
    wrong = database_url.replace("secret-word", "pass-word")
    for argv in (["status", "--database", wrong], ["worker"]):
        found = cluster(*argv, env={"HEYGEN_DATABASE_URL": wrong, "HEYGEN_API_KEY": "k"})
        assert found.code == 1
        assert "pass-word" not in found.out + found.err


def test_a_password_among_the_arguments_is_warned_of(cluster, database_url):
    found = cluster("status", "--database", database_url)

    assert found.code == 0
    assert "can see the password" in found.err
    assert "can see the password" not in cluster("status").err


def test_without_a_database_there_is_a_hint():
    found = run("cluster", "status", env={"HEYGEN_DATABASE_URL": ""})

    assert found.code == 2
    assert "HEYGEN_DATABASE_URL" in found.error["hint"]


@pytest.mark.parametrize("url", ["::nonsense::", "postgresql://user:pass-word@[host/db"])
def test_a_database_url_that_cannot_be_read_is_an_error_of_usage(url):
    found = run("cluster", "status", env={"HEYGEN_DATABASE_URL": url})

    assert found.code == 2
    assert "write postgresql://USER@HOST:PORT/NAME" in found.error["message"]
    assert "pass-word" not in found.out + found.err


def test_a_worker_with_a_wrong_key_ends_with_the_code_of_that(cluster, sandbox, manifest, tmp_path):
    cluster("enqueue", manifest, "--output-dir", tmp_path / "out", sandbox=sandbox)
    found = cluster("worker", sandbox=sandbox, env={"HEYGEN_API_KEY": "wrong"})

    assert found.code == 3
    assert "Traceback" not in found.err


def test_an_idle_worker_ends_at_once(cluster, sandbox, database_url):
    with start("cluster", "worker", sandbox=sandbox, env={"HEYGEN_DATABASE_URL": database_url}) as worker:
        until(lambda: (found := cluster("status").answer["accounts"]) and found[0]["scheduler"])
        os.kill(worker.pid, signal.SIGTERM)
        worker.communicate(timeout=20)
    assert worker.returncode == 143
    (account,) = cluster("status").answer["accounts"]
    assert account["workers"] == []
    assert account["scheduler"] is None
