"""The studies as commands. Help prints from a light table; a study and torch load only when one is run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .._version import __version__
from ..studies import STUDIES

STUDIO = "See runs in a browser, and start studies there. With no folder: runs/, and examples from the package."


def help_text() -> str:
    """What `superscope --help` prints."""
    width = max(len(command) for command, _ in _commands())
    lines = [
        "usage: superscope COMMAND [OPTIONS]        superscope COMMAND --help lists a command's options",
        "",
        "An instrument for superposition: how neural networks store more features than they have dimensions.",
        "",
        "commands:",
        *(f"  {command:<{width}}  {summary}" for command, summary in _commands()),
        "",
        "Start with `superscope scan`: it needs no model and no download. `superscope studio` shows what it found.",
    ]
    return "\n".join(lines)


def _commands() -> list[tuple[str, str]]:
    """Every command with what it does: the studies, and the studio that shows and starts them."""
    return [*((entry.command, entry.summary) for entry in STUDIES), ("studio", STUDIO)]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (0 done, 2 bad usage or input, 130 interrupted)."""
    try:
        code = _main(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. What is left to flush at exit would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _main(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"superscope {__version__}")
        return 0
    for entry in STUDIES:
        if arguments[0] == entry.command:
            # Read once, when torch loads: idle OpenMP threads sleep instead of spinning, which on a busy machine takes
            # the cores away from the thread they wait for.
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            from .command import run

            return run(entry, arguments[1:])
    if arguments[0] == "studio":
        from .studio import run as serve

        return serve(arguments[1:])
    import difflib

    near = difflib.get_close_matches(arguments[0], [command for command, _ in _commands()], n=1, cutoff=0.3)
    hint = f" Did you mean `superscope {near[0]}`?" if near else ""
    print(f"superscope: there is no command {arguments[0]!r}.{hint} `superscope --help` lists them.", file=sys.stderr)
    return 2
