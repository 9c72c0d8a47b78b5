# SPDX-License-Identifier: MIT
"""Async functions as tasks, and what holds around a call when it is queued: context variables, decimal's settings."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import sys
import textwrap
import traceback
from pathlib import Path
from typing import Any

import pytest
from conftest import Script

import dummymp

request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
settings: contextvars.ContextVar[dict[str, Any]] = contextvars.ContextVar("settings")


async def fetch(name: str, wait: float = 0.001) -> str:
    await asyncio.sleep(wait)
    return name.upper()


async def fail() -> None:
    await asyncio.sleep(0)
    raise KeyError("not there")


class Client:
    async def get(self, name: str) -> str:
        return await fetch(name)

    async def __call__(self, name: str) -> str:
        return await fetch(name)


def third() -> decimal.Decimal:
    return decimal.Decimal(1) / 3


def who() -> str:
    return request.get("nobody")


def spoil() -> None:
    request.set("somebody else")
    decimal.getcontext().prec = 2


@pytest.fixture(params=["processes", "inline"])
def engine(request: pytest.FixtureRequest) -> None:
    dummymp.configure(engine=request.param, priority="NUCLEAR", max_processes=1)


@pytest.mark.usefixtures("engine")
def test_async_functions_run() -> None:
    """Of every form: what they give when they are called is a coroutine, and that is run to its end."""
    for func in (fetch, Client().get, Client(), lambda name: fetch(name)):
        dummymp.run(func, "a")
    assert dummymp.results() == ["A"] * 4
    assert list(dummymp.map(fetch, "abc")) == ["A", "B", "C"]


@pytest.mark.usefixtures("engine")
def test_async_functions_fail() -> None:
    """The traceback has the function of the user, and not the way through the event loop."""
    with pytest.raises(KeyError, match="not there") as caught:
        dummymp.run(fail).result()
    assert "asyncio" not in "".join(traceback.format_exception(None, caught.value, caught.value.__traceback__))
    with pytest.raises(KeyError):
        list(dummymp.map(lambda _: fail(), [1]))


def test_an_async_function_can_be_stopped() -> None:
    with pytest.raises(dummymp.TaskTimeout), dummymp.configure(timeout=0.05, priority="NUCLEAR"):
        dummymp.run(fetch, "a", wait=1000).result()


def test_async_functions_inline_where_a_loop_runs() -> None:
    """As in a notebook."""
    dummymp.configure(engine="inline")

    async def cell() -> str:
        return dummymp.run(fetch, "a").result()

    assert asyncio.run(cell()) == "A"


def test_ctrl_c_inline_where_a_loop_runs(script: Script) -> None:
    """It ends the task, which would go on for ever in a thread of its own."""
    done = script(
        """
        import asyncio, dummymp, os, signal, threading
        dummymp.configure(engine="inline")
        async def endless():
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(1000)
        async def cell():
            try:
                dummymp.run(endless).result()
            except KeyboardInterrupt:
                print("interrupted")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(cell())
        loop.close()
        dummymp.killall()
        """
    )
    assert done.stdout == "interrupted\n", done.stderr


@pytest.mark.usefixtures("engine")
def test_context_variables_hold() -> None:
    """As they were when the call was queued; and what a task sets in them is gone with it."""
    dummymp.run(spoil)
    first = dummymp.run(who)
    token = request.set("a")
    second = dummymp.run(who)
    spoils = dummymp.run(spoil)
    third_one = dummymp.run(who)
    request.set("b")
    assert list(dummymp.map(lambda _: who(), range(2))) == ["b", "b"]
    request.reset(token)
    assert (first.result(), second.result(), spoils.result(), third_one.result()) == ("nobody", "a", None, "a")
    assert who() == "nobody"


def test_items_of_a_map_share_no_context() -> None:
    dummymp.configure(priority="NUCLEAR", max_processes=1)

    def item(n: int) -> tuple[str, int]:
        found = request.get("nobody"), decimal.getcontext().prec
        if n == 0:
            spoil()
        return found

    assert set(dummymp.map(item, range(500))) == {("nobody", 28)}


@pytest.mark.usefixtures("engine")
def test_values_are_frozen() -> None:
    token = settings.set({"depth": 1})
    task = dummymp.run(settings.get)
    settings.get()["depth"] = 2
    assert task.result() == {"depth": 1}
    settings.reset(token)


def test_what_is_in_a_context_variable_may_change() -> None:
    token = settings.set({"depth": 1})
    dummymp.configure(priority="NUCLEAR")
    dummymp.run(settings.get)
    settings.get()["depth"] = 2
    dummymp.run(settings.get)
    settings.reset(token)
    assert [task["depth"] for task in dummymp.results()] == [1, 2]


def test_what_cannot_travel_is_left_out() -> None:
    """A web server has its request in one; the task need not see it."""
    token = request.set(open(__file__))  # type: ignore[arg-type]
    try:
        assert dummymp.run(who).result() == "nobody"
    finally:
        request.get().close()  # type: ignore[attr-defined]
        request.reset(token)


@pytest.mark.usefixtures("engine")
def test_decimal_is_as_precise_as_here() -> None:
    with decimal.localcontext() as context:
        context.prec = 50
        context.traps[decimal.Inexact] = False
        precise = [dummymp.run(third), dummymp.run(spoil), dummymp.run(third)]
        mapped = list(dummymp.map(lambda _: third(), range(2)))
    dummymp.run(spoil)
    usual = dummymp.run(third)
    assert [len(str(task.result())) for task in (*precise[::2], usual)] == [52, 52, 30]
    assert [len(str(value)) for value in mapped] == [52, 52]


@pytest.mark.parametrize("engine_of_script", ["processes", "inline"])
def test_of_the_script_itself(script: Script, tmp_path: Path, start_method: str, engine_of_script: str) -> None:
    """Context variables of the main script travel by value, those of a module beside it by name."""
    (tmp_path / "helpers.py").write_text(
        textwrap.dedent(
            """
            import contextvars
            user = contextvars.ContextVar("user", default="guest")
            def name():
                return user.get()
            """
        )
    )
    done = script(
        f"""
        import contextvars, dummymp, helpers
        dummymp.configure(engine={engine_of_script!r})
        level = contextvars.ContextVar("the level", default=1)
        class Point: pass
        point = contextvars.ContextVar("point")
        def work(): return level.get(), helpers.name(), type(point.get()) is Point
        def given(variable): return variable is level, variable.get()
        level.set(7); helpers.user.set("ann"); point.set(Point())
        dummymp.run(work)
        dummymp.run(given, level)
        dummymp.run(lambda: level).result().set(9)
        print(dummymp.results()[:2], level.get())
        """
    )
    assert (done.stdout, done.stderr) == ("[(7, 'ann', True), (True, 7)] 9\n", "")


def test_small_limits_of_the_standard_library_hold(script: Script, start_method: str) -> None:
    done = script(
        """
        import csv, io, sys, dummymp
        csv.field_size_limit(1 << 20); sys.setrecursionlimit(5000)
        def deep(n): return n and deep(n - 1)
        def wide():
            import csv, io
            return len(next(csv.reader(io.StringIO("x" * 200_000)))[0])
        dummymp.run(deep, 4000); dummymp.run(wide)
        print(dummymp.results())
        """
    )
    assert (done.stdout, done.stderr) == ("[0, 200000]\n", "")


def test_contexts_of_other_threads_are_theirs() -> None:
    import threading

    def queue() -> None:
        request.set("thread")
        dummymp.run(who)

    thread = threading.Thread(target=queue)
    thread.start()
    thread.join()
    dummymp.run(who)
    assert dummymp.results() == ["thread", "nobody"]


if sys.version_info >= (3, 11):

    @pytest.mark.usefixtures("engine")
    def test_task_groups() -> None:
        async def both() -> list[str]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(name)) for name in "ab"]
            return [task.result() for task in tasks]

        assert dummymp.run(both).result() == ["A", "B"]
