"""Files and folders of results that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kpu_jax.base.errors import KPUError


@contextlib.contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files move into `folder`, one by one in place, when the block ends without an error.

    Raises `KPUError` at once if `folder` cannot be written, and leaves nothing behind after an error.
    """
    try:
        existed = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    except (OSError, ValueError) as error:
        raise KPUError(f"{folder}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    try:
        yield temporary
        blocked = [path.name for path in sorted(temporary.iterdir()) if (folder / path.name).is_dir()]
        if blocked:
            raise KPUError(f"{folder}: {', '.join(blocked)} is a folder there, not a file: move it away")
        for path in sorted(temporary.iterdir()):
            os.replace(path, folder / path.name)
    except OSError as error:
        raise KPUError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is still empty


def write_whole(file: Path, text: str) -> None:
    """Write UTF-8 `text` to `file`, in place of what is there, all of it or nothing; `KPUError` if that cannot be."""
    target = Path(os.path.realpath(file))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except (OSError, UnicodeEncodeError) as error:
        raise KPUError(f"{file!s}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
