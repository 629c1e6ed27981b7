"""How a driver serves: one JSON request per line on standard input, one JSON answer per line on standard output.

Runs in the peer's own environment, so nothing but the standard library. Whatever the peer prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def seconds() -> tuple[float, float]:
    """(wall, CPU of this process) [s]."""
    return time.perf_counter(), time.process_time()


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What a call returns, and its wall and CPU seconds."""
    wall, cpu = seconds()
    result = call()
    after = seconds()
    return result, {"wall": after[0] - wall, "cpu": after[1] - cpu}


def serve(prepare: Callable[[], dict[str, Callable[[Answer], Answer]]]) -> None:
    """Import the peer by `prepare`, then answer every request {"do": name, ...} with that handler's result."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: Answer) -> None:
        print(json.dumps(answer), file=out, flush=True)

    handlers, spent = timed(prepare)
    say({"seconds": spent})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(handlers[request["do"]](request))
        except Exception as error:  # a peer's trouble is its answer, not the benchmark's end
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"[:500]})
