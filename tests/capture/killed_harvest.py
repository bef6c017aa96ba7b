"""A server of harvests to be killed: it loads everything once, then forks one harvest for each line it is told.

A line is the folder of a harvest and the seconds after which it is killed (or `never`); the answer is how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def main(model_folder: str, text_folder: str) -> None:
    import torch

    # Before any work: a forked process has only one of its parent's threads.
    torch.set_num_threads(1)
    from superscope import capture

    loaded = capture.load(model_folder)
    policy = capture.Policy(context=16)
    # Everything is imported before the fork, so that what is killed is the harvest and not its imports.
    print("ready", flush=True)
    for line in sys.stdin:
        folder, after = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            where = capture.place(folder)
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
            os._exit(0)
        if after != "never":
            time.sleep(float(after))
            # Until it is waited for, its number stays its own, also when it has ended.
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
