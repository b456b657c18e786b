"""Writing: every file or none, whatever fails, and no trace of the attempt."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph_models import listing

from mmbm_onnx.errors import OutputError
from mmbm_onnx.graph import write
from mmbm_onnx.graph.write import check_targets, write_files

NAMES = ("hardened.onnx", "detector.onnx", "report.json")


def contents(version: int = 0) -> dict[str, bytes]:
    return {name: f"{name} {version} ".encode() * 5000 for name in NAMES}


def targets(folder: Path, version: int = 0) -> dict[Path, bytes]:
    return {folder / name: data for name, data in contents(version).items()}


def refusal(files: dict[Path, bytes], *, force: bool = False) -> str:
    with pytest.raises(OutputError) as caught:
        write_files(files, force=force)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=["unnamed", "named", "no links"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Systems with O_TMPFILE, without it, and without hard links either."""
    if request.param != "unnamed":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    if request.param == "no links":

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


def test_all_files_are_written_and_nothing_else(tmp_path: Path, system: str) -> None:
    write_files(targets(tmp_path))
    assert listing(tmp_path) == contents()


def test_empty_files_and_no_files(tmp_path: Path) -> None:
    write_files({})
    write_files({tmp_path / "empty": b""})
    assert listing(tmp_path) == {"empty": b""}


def test_files_in_several_directories(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_files({tmp_path / "a" / "one": b"1", tmp_path / "two": b"2"})
    assert (tmp_path / "a" / "one").read_bytes() == b"1"
    assert (tmp_path / "two").read_bytes() == b"2"


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files({Path("one"): b"1"})
    assert listing(tmp_path) == {"one": b"1"}


def test_existing_files_need_force(tmp_path: Path, system: str) -> None:
    write_files(targets(tmp_path, 0))
    assert "--force" in refusal(targets(tmp_path, 1))
    assert listing(tmp_path) == contents(0)
    write_files(targets(tmp_path, 1), force=True)
    assert listing(tmp_path) == contents(1)


def test_force_writes_new_files_too(tmp_path: Path, system: str) -> None:
    (tmp_path / NAMES[1]).write_bytes(b"old")
    write_files(targets(tmp_path), force=True)
    assert listing(tmp_path) == contents()


def test_permissions_follow_the_umask(tmp_path: Path, system: str) -> None:
    for mask in (0o022, 0o077, 0o002):
        before = os.umask(mask)
        try:
            write_files(targets(tmp_path), force=True)
        finally:
            os.umask(before)
        assert {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == {0o666 & ~mask}


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path, system: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    link = folder / NAMES[0]
    link.symlink_to(kept)
    assert "exists already" in refusal(targets(folder))
    write_files(targets(folder), force=True)
    assert not link.is_symlink()
    assert kept.read_bytes() == b"kept"
    assert listing(folder) == contents()


def test_a_dangling_link_is_there_too(tmp_path: Path) -> None:
    (tmp_path / NAMES[0]).symlink_to(tmp_path / "gone")
    assert "exists already" in refusal(targets(tmp_path))
    write_files(targets(tmp_path), force=True)
    assert listing(tmp_path) == contents()


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    assert "does not exist" in refusal({tmp_path / "absent" / "f": b""})
    assert "is a directory" in refusal({tmp_path: b""}, force=True)
    (tmp_path / "file").write_bytes(b"")
    assert "does not exist" in refusal({tmp_path / "file" / "f": b""})
    assert "not a usable file name" in refusal({tmp_path / "nul\0": b""})
    assert refusal({tmp_path / ("x" * 5000): b""})
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal({tmp_path / "pipe": b""}, force=True)
    assert "not a regular file" in refusal({Path(os.devnull): b""}, force=True)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert refusal({loop / "f": b""}, force=True)


def test_one_file_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert "two outputs" in refusal({tmp_path / "f": b"1", tmp_path / "link" / "f": b"2"})


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    for target in (model, link, tmp_path / "." / "model.onnx"):
        with pytest.raises(OutputError, match="overwrite an input"):
            check_targets([target], inputs=[model], force=True)
    with pytest.raises(OutputError, match="overwrite an input"):
        check_targets([model], inputs=[link], force=True)
    check_targets([tmp_path / "other.onnx"], inputs=[model])


def test_a_directory_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        assert "not writable" in refusal(targets(tmp_path))

    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)  # as root, access() says yes to everything
    assert "Read-only file system" in refusal(targets(tmp_path))


# Failures


class Failing:
    """Lets a call of the system through until its turn comes."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str, turn: int) -> None:
        self.count, self.turn, self.real = 0, turn, getattr(owner, name)
        self.failed = False
        failing = self

        def call(*args: object, **kwargs: object) -> object:
            failing.count += 1
            if failing.count == failing.turn:
                failing.failed = True
                raise OSError(errno.ENOSPC, "No space left on device")
            return failing.real(*args, **kwargs)

        patch.setattr(owner, name, call)


CALLS = [(os, "write"), (os, "fsync"), (os, "link"), (os, "open"), (Path, "replace")]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("owner", "name"), CALLS)
def test_a_failure_at_any_call_leaves_everything_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    system: str,
    owner: object,
    name: str,
    force: bool,
) -> None:
    if force:
        write_files(targets(tmp_path, 0))
    before = listing(tmp_path)
    failures = 0
    for turn in range(1, 40):
        with monkeypatch.context() as patch:
            failing = Failing(patch, owner, name, turn)
            try:
                write_files(targets(tmp_path, turn), force=force)
            except OutputError as error:
                assert failing.failed
                assert "No space left on device" in str(error)
                failures += 1
                assert listing(tmp_path) == before
                continue
        assert listing(tmp_path) == contents(turn)
        if not failing.failed:
            break
        for entry in tmp_path.iterdir():  # the failure did not matter: start again
            entry.unlink()
        if force:
            write_files(targets(tmp_path, 0))
        before = listing(tmp_path)
    else:
        pytest.fail("the call is never left alone")
    used = name in ("write", "fsync", "open") or (name == "link" and system != "no links")
    assert failures > 0 or not used or (name, system) == ("open", "unnamed")


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
    write_files(targets(tmp_path))
    assert listing(tmp_path) == contents()


def test_an_error_that_is_not_the_system_s_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    real = os.write
    calls = iter(range(100))

    def interrupted(fd: int, data: memoryview) -> int:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return real(fd, data)

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_files(targets(tmp_path))
    assert listing(tmp_path) == {}


def test_a_former_content_that_cannot_be_put_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(targets(tmp_path, 0))
    real = Path.replace
    calls = iter(range(100))

    def replace(self: Path, target: Path) -> Path:
        if next(calls) >= 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    text = refusal(targets(tmp_path, 1), force=True)
    assert "cannot be restored" in text
    kept = Path(text.rsplit(" ", 1)[1])
    assert kept.read_bytes() == contents(0)[NAMES[0]]


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    real = write._move_into_place

    def late(*args: object, **kwargs: object) -> None:
        (tmp_path / NAMES[1]).write_bytes(b"theirs")
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(write, "_move_into_place", late)
    assert "File exists" in refusal(targets(tmp_path))
    assert listing(tmp_path) == {NAMES[1]: b"theirs"}


def test_a_file_that_replaces_ours_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link
    calls = iter(range(100))

    def link(*args: object, **kwargs: object) -> None:
        if next(calls) == 1:
            (tmp_path / NAMES[0]).unlink()
            (tmp_path / NAMES[0]).write_bytes(b"theirs")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", link)
    refusal(targets(tmp_path))
    assert listing(tmp_path) == {NAMES[0]: b"theirs"}


def test_concurrent_writers_leave_one_whole_set(tmp_path: Path) -> None:
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        gate = threading.Barrier(4)
        results: list[int] = []

        def writer(
            version: int,
            folder: Path = folder,
            gate: threading.Barrier = gate,
            results: list[int] = results,
        ) -> None:
            gate.wait()
            try:
                write_files(targets(folder, version))
                results.append(version)
            except OutputError:
                pass

        threads = [threading.Thread(target=writer, args=(version,)) for version in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = results
        assert listing(folder) == contents(winner)


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_files_get_their_names_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None, number: signal.Signals
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(number, stop)
    real = os.link

    def link(*args: object, **kwargs: object) -> None:
        real(*args, **kwargs)  # type: ignore[arg-type]
        os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(KeyboardInterrupt):
        write_files(targets(tmp_path))
    assert listing(tmp_path) == contents()
    assert signal.getsignal(number) is stop


CHILD = """
import os, signal, sys
from pathlib import Path
from mmbm_onnx.graph.write import write_files
folder, name, turn = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
count, real = 0, getattr(os, name)
def call(*args, **kwargs):
    global count
    count += 1
    if count == turn:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(os, name, call)
names = ("hardened.onnx", "detector.onnx", "report.json")
write_files({folder / name: f"{name} 0 ".encode() * 5000 for name in names})
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs unnamed files")
@pytest.mark.parametrize(
    ("name", "turn"), [("write", 1), ("write", 3), ("fsync", 3), ("link", 1), ("link", 9)]
)
def test_a_kill_leaves_all_or_nothing(tmp_path: Path, name: str, turn: int) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), name, str(turn)], capture_output=True
    )
    killed = turn < 9
    assert child.returncode == (-signal.SIGKILL if killed else 0), child.stderr.decode()
    assert listing(tmp_path) == ({} if killed else contents())


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs unnamed files")
@pytest.mark.parametrize("turn", [2, 3])
def test_a_kill_between_two_names_leaves_only_whole_files(tmp_path: Path, turn: int) -> None:
    subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), "link", str(turn)])
    expected = {name: contents()[name] for name in NAMES[: turn - 1]}
    assert listing(tmp_path) == expected


ENDLESS = """
import sys
from pathlib import Path
from mmbm_onnx.graph.write import write_files
names = ("hardened.onnx", "detector.onnx", "report.json")
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    folder = Path(sys.argv[1]) / str(turn)
    folder.mkdir()
    write_files({folder / name: f"{name} 0 ".encode() * 5000 for name in names})
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs unnamed files")
def test_a_kill_at_a_random_moment_leaves_only_whole_files(tmp_path: Path) -> None:
    finished = 0
    for turn in range(8):
        folder = tmp_path / str(turn)
        folder.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(folder)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.02 + 0.0137 * turn)
        child.kill()
        child.wait()
        child.stdout.close()
        *whole, last = sorted(folder.iterdir(), key=lambda entry: int(entry.name))
        assert all(listing(entry) == contents() for entry in whole)
        found = listing(last)  # the first names, in order, each with its whole content
        assert found == {name: contents()[name] for name in NAMES[: len(found)]}
        finished += len(whole)
    assert finished > 0
