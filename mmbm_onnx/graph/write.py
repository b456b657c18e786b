"""Writing several files as one act: all of them in place, or none."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import FrameType
from typing import TypeAlias

from mmbm_onnx.errors import OutputError

Content: TypeAlias = bytes | Iterable[bytes]
"""Of a file: as a whole, or a few bytes at a time."""

_WINDOWS = os.name == "nt"
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789\u00b9\u00b2\u00b3"}
)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK)


# ERROR_INVALID_FUNCTION and ERROR_NOT_SUPPORTED: Windows has no errno for what FAT does not know.
_NO_HARD_LINKS_ON_WINDOWS = (1, 50)


def parts_of(content: Content) -> Iterable[bytes]:
    """The content of a file, part by part."""
    return [content] if isinstance(content, bytes) else content


def data_path(path: Path) -> Path:
    """Where the weights of a large model go that is written to ``path``."""
    return path.parent / f"{path.name}.data"


def check_data_name(path: Path) -> None:
    """Check that weights can lie beside a model that is written to ``path``.

    Raises:
        OutputError: The name of their file is not text, or looks like a path on some system, so
            that no reader would take it.
    """
    name = data_path(path).name
    if PureWindowsPath(name).name != name or PurePosixPath(name).name != name:
        raise OutputError(f"{path}: weights cannot lie beside a file of that name; choose another")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise OutputError(
            f"{os.fsencode(path)!r}: weights cannot lie beside a file whose name is not UTF-8; "
            "choose another"
        ) from None


def check_targets(
    targets: Sequence[Path], *, inputs: Sequence[Path] = (), force: bool = False
) -> None:
    """Check early that ``targets`` can be written, so that no hour of work ends in a refusal.

    Raises:
        OutputError: Two targets are the same file, or would be where case does not matter; a
            target is an input, a directory or device, has a name that Windows keeps for itself (on
            Windows), exists without ``force``, or its directory is missing or not writable.
    """
    seen: dict[str, list[Path]] = {}
    sources: dict[str, list[Path]] = {}
    for path in map(_resolved, inputs):
        sources.setdefault(_folded(path), []).append(path)
    for target in targets:
        if _WINDOWS and (reason := _refused_by_windows(target.name)):
            raise OutputError(f"{target}: {reason}; choose another name")
        resolved = _resolved(target)
        others = seen.setdefault(_folded(resolved), [])
        if resolved in others:
            raise OutputError(f"{target}: two outputs would be written to the same file")
        for other in others:
            if _is_same(other.parent, resolved.parent):
                raise OutputError(
                    f"{target}: {other.name} is another output, which is the same file where case "
                    "does not matter (Windows, macOS); choose another name"
                )
        others.append(resolved)
        for source in sources.get(_folded(resolved), []):
            if source == resolved or _is_same(source, resolved):
                raise OutputError(
                    f"{target}: the output would overwrite an input; choose another name"
                )
        parent = target.parent
        if not parent.is_dir():
            raise OutputError(f"{target}: the directory {parent} does not exist; create it first")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise OutputError(f"{target}: the directory {parent} is not writable")
        if target.is_dir():
            raise OutputError(f"{target}: is a directory, not a file")
        if target.exists() and not target.is_file():
            raise OutputError(f"{target}: is not a regular file, so it cannot be replaced")
        if not force and os.path.lexists(target):
            raise OutputError(f"{target}: exists already; use --force to overwrite it")


def _resolved(path: Path) -> Path:
    """The file a path stands for; raises OutputError where it can stand for none."""
    shown = str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}..."
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, link loops, NUL bytes
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise OutputError(f"{shown!r}: is not a usable file name ({reason})") from None


def _folded(path: Path) -> str:
    """What two paths have in common that are one on Windows and macOS."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _is_same(left: Path, right: Path) -> bool:
    try:
        return left.samefile(right)
    except OSError:
        return False


def _refused_by_windows(name: str) -> str:
    """Why Windows has no file of that name; empty where it may have one."""
    if name.split(".")[0].rstrip(" ").casefold() in _RESERVED:
        return "is the name of a device on Windows"
    if name.endswith((" ", ".")) or any(char in '<>:"|?*' or ord(char) < 32 for char in name):
        return "is no name for a file on Windows"
    return ""


def _cannot_link(error: OSError) -> bool:
    """Whether a file system knows no hard links."""
    if error.errno in _NO_HARD_LINKS:
        return True
    return getattr(error, "winerror", None) in _NO_HARD_LINKS_ON_WINDOWS


def write_files(files: Mapping[Path, Content], *, force: bool = False) -> None:
    """Write every file or none.

    Contents go to unnamed temporary files (named ones where the system has no O_TMPFILE) in the
    targets' own directories first and get their names only when all are on disk. Interrupts and
    requests to end are held back from the first byte to the last name. A failure restores what
    was there before. A target that is a symbolic link is replaced by a file; what it points to
    stays as it is. Permissions follow the umask.

    Only a SIGKILL or a power cut within the few microseconds between the first and the last name
    can leave the first of several files alone; a file is never there in part.

    Raises:
        OutputError: As ``check_targets``, or the system refuses (disk full, ...).
    """
    check_targets(list(files), force=force)
    staged: list[_Staged] = []
    with _interrupts_held():
        try:
            for target, content in files.items():
                staged.append(_Staged(target, content))
            _move_into_place(staged, force=force)
        finally:
            for stage in staged:
                stage.close()


class _Staged:
    """Contents on disk, in the target's directory, without the target's name."""

    def __init__(self, target: Path, content: Content) -> None:
        self.target = target
        self._name: Path | None = None
        self._fd = -1
        try:
            self._open()
            for part in parts_of(content):
                view = memoryview(part)
                while view:
                    view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
            self._seal()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _failure(target, error) from None
            raise

    def _open(self) -> None:
        if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
            with contextlib.suppress(OSError):  # not every file system has it
                self._fd = os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
                return
        name = self.target.parent / f".mmbm-{secrets.token_hex(8)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._fd = os.open(name, flags, 0o666)
        self._name = name

    def _seal(self) -> None:
        """The content is complete. A file that has a name is closed: Windows neither renames nor
        removes one that is open."""
        if self._name is None:
            self._status = os.fstat(self._fd)
            return
        os.close(self._fd)
        self._fd = -1
        self._status = self._name.lstat()

    def link(self, name: Path) -> None:
        """Give the contents a name that must not exist yet.

        Raises:
            OSError: The system refuses, or the name exists.
        """
        if self._name is None:
            # Only with a directory given does Python call linkat, which can follow the link; the
            # path is absolute, so which directory does not matter.
            source = f"/proc/self/fd/{self._fd}"
            os.link(source, name, src_dir_fd=self._fd, follow_symlinks=True)
            return
        try:
            os.link(self._name, name)
        except OSError as error:
            if not _cannot_link(error):
                raise
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                self._name.replace(name)
            except BaseException:
                name.unlink(missing_ok=True)
                raise

    def is_at(self, name: Path) -> bool:
        """Whether the file of that name is this one."""
        try:
            return os.path.samestat(name.lstat(), self._status)
        except OSError:
            return False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._name is not None:
            with contextlib.suppress(OSError):
                self._name.unlink(missing_ok=True)
            self._name = None


class _Move:
    """One target on its way from its former content to the new one."""

    def __init__(self, stage: _Staged, *, force: bool) -> None:
        self.stage = stage
        self.target = stage.target
        self._fresh: Path | None = None
        self._kept: Path | None = None
        self._replaces = force and os.path.lexists(self.target)

    def prepare(self) -> None:
        """Give the new content a name beside the target, and the former one a second name."""
        if not self._replaces:
            return
        token = secrets.token_hex(4)
        fresh = self.target.with_name(f".mmbm-{token}.new")
        self.stage.link(fresh)
        self._fresh = fresh
        kept = self.target.with_name(f".mmbm-{token}.old")
        try:
            os.link(self.target, kept, follow_symlinks=False)
        except NotImplementedError:
            self.target.rename(kept)
        except OSError as error:
            if not _cannot_link(error):
                raise
            self.target.rename(kept)
        self._kept = kept

    def commit(self) -> None:
        if self._fresh is not None:
            self._fresh.replace(self.target)
            self._fresh = None
        else:
            self.stage.link(self.target)

    def undo(self) -> None:
        """Restore what was there; what others put there meanwhile stays.

        Raises:
            OutputError: The system refuses; the former content keeps its second name.
        """
        if self._kept is not None:
            if self.stage.is_at(self.target) or not os.path.lexists(self.target):
                try:
                    self._kept.replace(self.target)
                except OSError as error:
                    raise OutputError(
                        f"{self.target}: cannot be restored ({error.strerror}); its former "
                        f"content is in {self._kept}"
                    ) from None
        elif not self._replaces and self.stage.is_at(self.target):
            self.target.unlink()
        self.forget()

    def forget(self) -> None:
        """Remove the names that only this move needed."""
        for name in (self._fresh, self._kept):
            if name is not None:
                # Renaming between two names of the same file does nothing, so undo() needs this.
                with contextlib.suppress(OSError):
                    name.unlink(missing_ok=True)
        self._fresh = self._kept = None


def _move_into_place(staged: Sequence[_Staged], *, force: bool) -> None:
    moves = [_Move(stage, force=force) for stage in staged]
    current = moves[0].target if moves else Path()
    try:
        for step in (_Move.prepare, _Move.commit):
            for move in moves:
                current = move.target
                step(move)
    except BaseException as error:
        stuck: list[OutputError] = []
        for move in reversed(moves):
            try:
                move.undo()
            except OutputError as problem:
                stuck.append(problem)
        if stuck:
            raise stuck[0] from error
        if isinstance(error, OSError):
            raise _failure(current, error) from None
        raise
    for move in moves:
        move.forget()
    for directory in {move.target.parent for move in moves}:
        with contextlib.suppress(OSError):
            handle = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _failure(target: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f"{target}: cannot be written ({reason}); no file was written")


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C and requests to end back until the block is done.

    Handlers, not a signal mask: a mask holds for one thread, and libraries have threads of their
    own that the system may choose to deliver to.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        pending.append(number)

    before = {}
    try:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not None:
                before[number] = signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in pending:
            signal.raise_signal(number)
