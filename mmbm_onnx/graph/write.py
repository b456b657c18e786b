"""Writing several files as one act: all of them in place, or none."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmbm_onnx.errors import OutputError


def check_targets(
    targets: Sequence[Path], *, inputs: Sequence[Path] = (), force: bool = False
) -> None:
    """Check early that ``targets`` can be written, so that no hour of work ends in a refusal.

    Raises:
        OutputError: Two targets are the same file, a target is an input, a directory, exists
            without ``force``, or its directory is missing or not writable.
    """
    seen: dict[Path, Path] = {}
    sources = {path.resolve() for path in inputs}
    for target in targets:
        resolved = target.resolve()
        if resolved in seen:
            raise OutputError(f"{target}: two outputs would be written to the same file")
        seen[resolved] = target
        if resolved in sources:
            raise OutputError(f"{target}: the output would overwrite an input; choose another name")
        parent = target.parent
        if not parent.is_dir():
            raise OutputError(f"{target}: the directory {parent} does not exist; create it first")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"{target}: the directory {parent} is not writable")
        if target.is_dir():
            raise OutputError(f"{target}: is a directory, not a file")
        if not force and os.path.lexists(target):
            raise OutputError(f"{target}: exists already; use --force to overwrite it")


def write_files(files: Mapping[Path, bytes], *, force: bool = False) -> None:
    """Write every file or none.

    Contents go to unnamed temporary files (named ones where the system has no O_TMPFILE) in the
    targets' own directories first and get their names only when all are on disk, with signals
    held back meanwhile. A failure restores what was there before.

    Raises:
        OutputError: As ``check_targets``, or the system refuses (disk full, ...).
    """
    check_targets(list(files), force=force)
    staged: list[tuple[Path, _Staged]] = []
    current = next(iter(files), Path())
    try:
        for target, content in files.items():
            current = target
            staged.append((target, _Staged(target.parent, content)))
        with _signals_held():
            _move_into_place(staged, force=force)
    except OSError as error:
        raise OutputError(f"{current}: cannot be written ({error.strerror})") from None
    finally:
        for _, stage in staged:
            stage.close()


class _Staged:
    """Contents on disk, in the target's directory, without the target's name."""

    def __init__(self, directory: Path, content: bytes) -> None:
        self._name: str | None = None
        self._fd = -1
        if hasattr(os, "O_TMPFILE"):
            with contextlib.suppress(OSError):  # not every file system has it
                self._fd = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o666)
        if self._fd < 0:
            self._fd, self._name = tempfile.mkstemp(prefix=".mmbm-", dir=directory)
            umask = os.umask(0)
            os.umask(umask)
            Path(self._name).chmod(0o666 & ~umask)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except BaseException:
            self.close()
            raise

    def link(self, name: Path) -> None:
        """Give the contents a name that must not exist yet."""
        if self._name is None:
            os.link(f"/proc/self/fd/{self._fd}", name, follow_symlinks=True)
        else:
            os.link(self._name, name)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._name is not None:
            Path(self._name).unlink(missing_ok=True)
            self._name = None


def _move_into_place(staged: Sequence[tuple[Path, _Staged]], *, force: bool) -> None:
    done: list[tuple[Path, Path | None]] = []  # target, where its former content is kept
    try:
        for target, stage in staged:
            if force and os.path.lexists(target):
                token = secrets.token_hex(4)
                kept = target.with_name(f".{target.name}.{token}.old")
                fresh = target.with_name(f".{target.name}.{token}.new")
                stage.link(fresh)
                try:
                    os.link(target, kept, follow_symlinks=False)
                    done.append((target, kept))
                    fresh.replace(target)
                finally:
                    fresh.unlink(missing_ok=True)
            else:
                stage.link(target)
                done.append((target, None))
    except BaseException:
        for target, former in reversed(done):
            if former is None:
                target.unlink(missing_ok=True)
            else:
                former.replace(target)
        raise
    for _, former in done:
        if former is not None:
            former.unlink()
    for directory in {target.parent for target, _ in staged}:
        with contextlib.suppress(OSError):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
