"""Files that are there as a whole or not at all, whatever kills the process that writes them."""

import json
import os
import re
import secrets
import shutil
import socket
import time
import zlib
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"\.temporary-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{16}")
_MINUTES, _DAY = 600, 86400


def temporary(folder: Path) -> Path:
    """A new name in `folder` for what is not finished; it tells `remove_stale` which process it belongs to."""
    return folder / f".temporary-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove_stale(folder: Path) -> None:
    """Remove what killed processes left half-written.

    Stale is a temporary file or folder that was not touched for ten minutes and whose process, on this host, is gone,
    or that was not touched for a day, wherever it comes from.
    """
    with os.scandir(folder) as entries:
        found = [(entry.path, match) for entry in entries if (match := _TEMPORARY.fullmatch(entry.name))]
    for path, match in found:
        try:
            age = time.time() - os.stat(path).st_mtime
        except FileNotFoundError:  # another process was quicker
            continue
        gone = match["host"] == socket.gethostname() and not _alive(int(match["process"]))
        if age > (_MINUTES if gone else _DAY):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Bring a file's content, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(told: Any) -> bytes:
    """A line of JSON with its checksum at the end, for what must not be misread."""
    text = json.dumps(told).encode("ascii")
    return b"%s %08x\n" % (text, zlib.crc32(text))


def unseal(line: bytes) -> Any:
    """What was sealed, or None if the line is not as it was written.

    Example:
      >>> line = seal({"step": 3})
      >>> line, unseal(line), unseal(line.replace(b"3", b"4"))
      (b'{"step": 3} 08b1f3bf\\n', {'step': 3}, None)
    """
    text, _, checksum = line.rpartition(b" ")
    return json.loads(text) if checksum == b"%08x\n" % zlib.crc32(text) else None
