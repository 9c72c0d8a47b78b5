"""A task that starts processes of its own, with what `multiprocessing` and `concurrent.futures` offer."""

from __future__ import annotations

import sys

import pytest
from conftest import Script

SCRIPT = """
import concurrent.futures, dummymp, multiprocessing, sys
dummymp.configure(priority="nuclear", timeout=30)
def helper(x):
    return x + 1
def square(x):
    return helper(x) * x
class Own:
    def __init__(self, value): self.value = value
def make(x):
    print("made", x)
    return Own(x)
def put(queue, x):
    queue.put(square(x))
def pool(context):
    with context.Pool(2) as pool:
        return pool.map(square, [1, 2, 3])
def executor(context):
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    try:
        return list(executor.map(square, [1, 2, 3])), executor.submit(make, 5).result().value
    finally:
        executor.shutdown(wait=False)  # After a call that could not be sent, Python's own may wait for ever.
def process(context):
    queue = context.Queue()
    process = context.Process(target=put, args=(queue, 3))
    process.start()
    value = queue.get(timeout=20)
    process.join()
    return value, process.exitcode
def objects(context):
    with context.Pool(1) as pool:
        return pool.map(repr, [Own(1)])[0][:14]
tasks = [pool, executor, process, objects]
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where processes are copies by default")
def test_functions_of_the_script(script: Script, start_method: str) -> None:
    """Pools, executors and processes in a task run functions of the main script, and take objects of its classes."""
    done = script(
        SCRIPT
        + """
print([dummymp.run(lambda task: task(None if task is executor else multiprocessing), task).result() for task in tasks])
fork = lambda task: task(multiprocessing.get_context("fork"))
print([dummymp.run(fork, task).result() for task in tasks])
"""
    )
    expected = "[[2, 6, 12], ([2, 6, 12], 5), (12, 0), '<__main__.Own ']"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["made 5", expected, "made 5", expected]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_no_copies(script: Script, method: str) -> None:
    """Processes that cannot know the script's functions fail at once, and never hang; since 3.14 it is said why."""
    done = script(
        SCRIPT
        + f"""
import logging; logging.disable(logging.CRITICAL)
start = lambda task: task(multiprocessing.get_context("{method}"))
queued = [dummymp.run(start, task) for task in tasks]
dummymp.process_until_done()
for task in queued:
    print(type(task.exception()).__name__, task.exception())
"""
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["PicklingError"] * 4
    if sys.version_info >= (3, 14):
        for name, line in zip(("square", "square", "put", "Own"), lines):
            assert f"{name} of the main script is not in processes that multiprocessing starts with '{method}'" in line
            assert 'multiprocessing.get_context("fork")' in line


def test_a_start_method_of_the_tasks_own_choice(script: Script) -> None:
    """A task that chooses the start method itself has it, with functions that can be imported."""
    done = script("""
    import dummymp, multiprocessing
    def task():
        multiprocessing.set_start_method("spawn", force=True)
        with multiprocessing.Pool(1) as pool:
            return multiprocessing.get_start_method(), pool.map(abs, [-1])
    print(dummymp.run(task).result())
    """)
    assert (done.stdout, done.stderr) == ("('spawn', [1])\n", "")


def test_processes_of_a_task_end_with_it(script: Script) -> None:
    """What such a task started is gone when it is killed."""
    done = script("""
    import dummymp, multiprocessing, os, psutil, tempfile, time
    folder = tempfile.mkdtemp()
    def sleeper(n):
        open(os.path.join(folder, str(os.getpid())), "w").close()
        time.sleep(600)
    def task():
        with multiprocessing.Pool(2) as pool:
            pool.map(sleeper, range(2))
    running = dummymp.run(task)
    while len(os.listdir(folder)) < 2:
        dummymp.step(0.1)
    dummymp.kill(running)
    dummymp.reset()
    pids = [int(name) for name in os.listdir(folder)]
    gone, left = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=20)
    print(left)
    """)
    assert done.stdout == "[]\n", done.stderr
