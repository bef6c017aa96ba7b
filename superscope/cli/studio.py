"""`superscope studio`: runs in a browser, and studies started from there."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from .refusal import require_writable, sentence

PORT = 8745
_TRIED = 20


@dataclass(frozen=True)
class Studio:
    """See runs in a browser, and start studies from there.

    Serves this machine alone, at an address that holds a key; whoever has the address can start studies as this user.
    On another machine, forward the port: ssh -L 8745:127.0.0.1:8745 that-machine.
    """

    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """A run to open, or a folder of runs; new ones go there, or beside the run."""
    port: int = 0
    """Of the address. Default: 8745, or the next one that is free."""
    read_only: bool = False
    """Show runs and start nothing."""
    no_browser: bool = False
    """Print the address and leave it to you to open it."""


def run(arguments: Sequence[str]) -> int:
    """Serves until it is interrupted; returns its exit code."""
    errors = Console(stderr=True, highlight=False)
    try:
        asked = tyro.cli(
            Studio,
            prog="superscope studio",
            args=list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    try:
        return _serve(asked)
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "pydantic", "starlette"):
            raise
        told = f"the studio needs {error.name}. Install it: pip install 'superscope[studio]'"
    except (OSError, ValueError) as error:
        told = sentence(error)
    errors.print(f"superscope studio: {told}", markup=False, soft_wrap=True, style="red")
    return 2


def _serve(asked: Studio) -> int:
    from ..studio.html import shell
    from ..studio.server import Place, make_app, server_of
    from ..studio.server.forms import forms

    shell()
    folder = asked.folder.resolve()
    opens = folder if (folder / "about.json").is_file() else None
    if not opens and asked.folder != Path("runs") and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {asked.folder}. Give a run, or a folder of runs.")
    root = folder.parent if opens else folder
    if not asked.read_only:
        require_writable(root)
    listening = _listen(asked.port)
    port = listening.getsockname()[1]
    app = make_app(Place(root, opens, asked.read_only), cookie=f"superscope-{port}")
    address = f"http://127.0.0.1:{port}/?token={app.state.token}"
    print(f"The studio shows {opens or root}. Open this address, which is the key to it; end with Ctrl-C:\n{address}")
    sys.stdout.flush()
    # Reading the studies takes seconds: it is done before somebody waits for it.
    threading.Thread(target=forms, name="forms", daemon=True).start()
    if not asked.no_browser:
        webbrowser.open(address)
    with contextlib.suppress(KeyboardInterrupt):
        server_of(app).run(sockets=[listening])
    return 0


def _listen(port: int) -> socket.socket:
    """A socket on the loopback address.

    Raises:
        OSError: if the port, or every one that is tried, is taken.
    """
    for tried in [port] if port else [*range(PORT, PORT + _TRIED), 0]:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", tried))
        except (OSError, OverflowError):
            listening.close()
            continue
        listening.listen(128)
        return listening
    raise OSError(f"port {port} is taken, or may not be used. Give another one with --port.")
