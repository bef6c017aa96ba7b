"""What a command says when it cannot go on: one sentence with the fix in it."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

_CAUSES = {
    errno.ENOENT: "there is no {file}. Check the path.",
    errno.EACCES: "{file} may not be read or written by this user. Change its permissions, or choose another place.",
    errno.EPERM: "{file} may not be read or written by this user. Change its permissions, or choose another place.",
    errno.EROFS: "{file} is on a disk that cannot be written to. Choose another place.",
    errno.ENOSPC: "the disk is full, writing {file}. Make room, and give the same command again.",
    errno.EDQUOT: "this user's share of the disk is full, writing {file}. Make room, and give the same command again.",
    errno.ENOTDIR: "{file} goes through a file as if it were a folder. Check the path.",
    errno.EISDIR: "{file} is a folder where a file is wanted. Check the path.",
}


def sentence(error: BaseException) -> str:
    """The error's own sentence; that of an error of the operating system is put into words here."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.errno is not None:
        file = error.filename if error.filename is not None else "a file"
        return _CAUSES.get(error.errno, f"{error.strerror or error}: {{file}}.").format(file=file)
    return str(error)


def usage(complaint: str) -> str:
    """What tyro says of an option, with Python's words for a wrong number put into a reader's."""
    text = "\n".join(line.rstrip() for line in complaint.splitlines()).strip("\n")
    text = re.sub(r"invalid literal for int\(\) with base 10: ('.*?')", r"\1 is no whole number", text)
    return re.sub(r"could not convert string to float: ('.*?')", r"\1 is no number", text)


def require_writable(out: Path) -> None:
    """Checks before any work that a run folder can be made where it is wanted.

    Raises:
        NotADirectoryError: if `out` or a folder on the way to it is a file.
        PermissionError: if this user may not write there.
    """
    absolute = out.absolute()
    standing = next(parent for parent in (absolute, *absolute.parents) if os.path.lexists(parent))
    if not standing.is_dir():
        what = "is a file" if standing.exists() else "is a link to nothing"
        raise NotADirectoryError(f"{standing} {what}, so no run can be kept there. Choose a folder with --out.")
    if not os.access(standing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{standing} may not be written to by this user, so {out} cannot be made. Choose another folder with --out."
        )
