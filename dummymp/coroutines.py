# SPDX-License-Identifier: MIT
"""Tasks that are async functions: what they give when they are called, a coroutine, is run to its end."""

from __future__ import annotations

import types
from typing import Any

__all__ = ["COROUTINE", "run_coroutine"]

COROUTINE = types.CoroutineType


def run_coroutine(coroutine: Any) -> Any:
    """Run a coroutine in an event loop of its own; give what it returns, or raise what it raises.

    Where a loop runs in this thread already, as in a notebook with engine="inline", it has a thread of its own, too.
    """
    import asyncio

    try:
        return _run_in_thread(coroutine) if _a_loop_runs() else asyncio.run(coroutine)
    except BaseException as error:
        BaseException.with_traceback(error, _own(error.__traceback__))
        raise error


def _a_loop_runs() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _own(trace: types.TracebackType | None) -> types.TracebackType | None:
    """Leave out of a traceback the way through the event loop to the function of the user, if it came so far."""
    own = trace
    while own is not None and _is_ours(str(dict.get(own.tb_frame.f_globals, "__name__"))):
        own = own.tb_next
    return own or trace


def _is_ours(module: str) -> bool:
    return module == __name__ or module.partition(".")[0] in ("asyncio", "concurrent", "contextvars", "threading")


def _run_in_thread(coroutine: Any) -> Any:
    import asyncio
    import concurrent.futures
    import contextvars

    running: list[tuple[Any, Any]] = []

    async def run() -> Any:
        running.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await coroutine

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        future = thread.submit(contextvars.copy_context().run, asyncio.run, run())
        try:
            return future.result()
        except BaseException:
            if not future.done():  # Ctrl-C: the end of the block would wait for one that may have no end.
                for loop, task in running:
                    loop.call_soon_threadsafe(task.cancel)
            raise
