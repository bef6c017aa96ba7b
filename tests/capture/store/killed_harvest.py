"""A server of harvests to be killed: it loads everything once, then forks harvests for each line it is told.

A line is the folder of a harvest, the seconds after which one is killed (or `never`), and how many run there at once;
the answer is how each ended. What each made is noted in `made`, beside the folder: its process and the unit, a line
for each, once the unit stands.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main(model_folder: str, text_folder: str) -> None:
    import torch

    # Before any work: a forked process has only one of its parent's threads.
    torch.set_num_threads(1)
    from superscope import capture

    loaded = capture.load(model_folder)
    policy = capture.Policy(context=16)

    def harvest(folder: str, slowly: bool) -> None:
        write, where = capture.Store.write, capture.place(folder)

        def noted(store: capture.Store, unit: int, *tensors: Any, **facts: Any) -> capture.Record:
            record = write(store, unit, *tensors, **facts)
            with Path(f"{folder}.made").open("a") as made:
                made.write(f"{os.getpid()} {unit}\n")
            # So that one that begins later still finds something to do.
            time.sleep(0.03 if slowly else 0)
            return record

        capture.Store.write = noted  # type: ignore[method-assign]
        for _ in capture.write_windows(
            where,
            loaded.tokenizer,
            capture.stream(text_folder, seed=0),
            policy,
            source=Path(text_folder).name,
            tokenizer_hash=capture.tokenizer_hash(loaded.tokenizer),
        ):
            time.sleep(0.002)
        windows = capture.Windows(where)
        asked = ["resid_post.0", "mlp_act.1"]
        store = capture.prepare(where, loaded, asked, windows, policy, per_unit=4, batch_tokens=32)
        for _ in capture.fill(store, loaded, windows):
            pass

    # Everything is imported before the fork, so that what is killed is the harvest and not its imports.
    print("ready", flush=True)
    for line in sys.stdin:
        folder, after, at_once = line.rstrip("\n").split("\t")
        children = []
        for _ in range(int(at_once)):
            children.append(os.fork())
            if children[-1] == 0:
                harvest(folder, slowly=at_once != "1")
                os._exit(0)
        if after != "never":
            time.sleep(float(after))
            # Until it is waited for, its number stays its own, also when it has ended.
            os.kill(children[0], signal.SIGKILL)
        ends = [os.waitpid(child, 0)[1] for child in children]
        print(
            ", ".join("killed" if os.WIFSIGNALED(end) else f"ended {os.WEXITSTATUS(end)}" for end in ends), flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
