"""Large buffers outside the stream: right, private, found again, and gone when nobody needs them."""

from __future__ import annotations

import array
import errno
import gc
import logging
import operator
import os
import pickle
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Script

import dummymp
from dummymp import buffers, descriptors, freeze, memoryfile
from dummymp.buffers import Collector, close_all, pack, packet_of, unpack
from dummymp.descriptors import Packets, WaitingPackets
from dummymp.pickling import dumps, loads

numpy = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# So many numbers of 8 bytes are well above what stays in the stream.
MANY = 400_000


@pytest.fixture(autouse=True)
def _one_worker_at_once() -> Iterator[None]:
    dummymp.configure(priority="NUCLEAR", max_processes=1)
    yield


@pytest.fixture(autouse=True)
def _no_memory_file_left() -> Iterator[None]:
    """See that each test gives back every memory file and view."""
    gc.collect()
    before, held = memory_files(), memoryfile._held.count
    yield
    dummymp.reset()
    gc.collect()
    assert (memory_files(), memoryfile._held.count) == (before, held)


def memory_files() -> int:
    """Count the large memory files that this process holds by a descriptor or has mapped."""
    found = set()
    with open("/proc/self/maps") as file:
        for words in map(str.split, file):
            start, end = (int(address, 16) for address in words[0].split("-"))
            if "memfd:" in words[-2] + words[-1] and end - start >= buffers.LARGE:
                found.add(int(words[4]))
    for name in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{name}"
        try:
            if "memfd:" in os.readlink(path) and os.stat(path).st_size >= buffers.LARGE:
                found.add(os.stat(path).st_ino)
        except OSError:
            continue
    return len(found)


def results(func: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Any]:
    """Run calls of a function and give what they returned."""
    return [task.result() for task in [dummymp.run(func, *args) for args in calls]]


def identity(value: Any) -> Any:
    return value


def is_view(value: Any) -> bool:
    """Tell whether an array stands in a memory file, rather than in memory of its own."""
    while isinstance(value, numpy.ndarray):
        value = value.base
    value = value.obj if isinstance(value, memoryview) else value
    return type(value).__name__ == "View"


# --- contents -----------------------------------------------------------------------------------------------------

ARRAYS: dict[str, Callable[[], Any]] = {
    "floats": lambda: numpy.arange(MANY, dtype=float),
    "small": lambda: numpy.arange(10),
    "nothing": lambda: numpy.zeros((0, 1 << 20)),
    "Fortran order": lambda: numpy.asfortranarray(numpy.arange(MANY * 2.0).reshape(1000, -1)),
    "every other": lambda: numpy.arange(MANY * 2)[::2],
    "backwards": lambda: numpy.arange(MANY)[::-1],
    "a column": lambda: numpy.arange(MANY * 4.0).reshape(-1, 4)[:, 1],
    "transposed": lambda: numpy.arange(MANY * 3.0).reshape(3, 100, -1).transpose(2, 0, 1),
    "structured": lambda: numpy.ones(MANY, [("name", "S6"), ("mass", "f8"), ("at", "f4", (2, 3))]),
    "other endian": lambda: numpy.arange(MANY, dtype=">i8"),
    "booleans": lambda: numpy.arange(MANY * 8) % 3 == 0,
    "complex": lambda: numpy.arange(MANY) * 1j,
    "text": lambda: numpy.array(["ab", "c"] * MANY),
    "dates": lambda: numpy.arange(MANY).astype("M8[D]"),
    "objects": lambda: numpy.array([None, "a", (1, 2)] * 100, dtype=object),
    "a number": lambda: numpy.array(7.5),
    "masked": lambda: numpy.ma.masked_less(numpy.arange(MANY * 1.0), 10),
    "not a number": lambda: numpy.full(MANY, numpy.nan),
}


def test_an_array_arrives_as_it_is_and_comes_back_so() -> None:
    """Of any type, shape and order of memory; both ways."""
    arrays = [make() for make in ARRAYS.values()]
    for name, one, back in zip(ARRAYS, arrays, results(identity, *[(one,) for one in arrays])):
        assert type(back) is type(one) and back.dtype == one.dtype and back.shape == one.shape, name
        assert (back == one).all() if one.dtype.hasobject else back.tobytes() == one.tobytes(), name
        assert back.flags.f_contiguous == one.flags.f_contiguous or not one.flags.forc, name


def test_large_arrays_are_views_and_small_ones_are_not() -> None:
    """Only what is large is worth a memory file."""
    assert results(is_view, (numpy.zeros(MANY),), (numpy.zeros(10),)) == [True, False]
    large, small = results(numpy.zeros, (MANY,), (10,))
    assert is_view(large) and not is_view(small)


@pytest.mark.parametrize("size", [10, MANY])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_that_cannot_be_written_arrives_as_one_that_can(size: int, order: Any) -> None:
    """The task has a copy, so nothing forbids it to write there; the same for results."""
    array = numpy.arange(size * 2.0).reshape(2, size).copy(order)
    array.flags.writeable = False
    (back,) = results(add_one, (array,))
    assert (back == array + 1).all()
    back[0] = 5
    dummymp.run(read_only_ones, size)
    back = dummymp.results()[-1]
    back += 1
    assert back[0] == 2 and back.flags.c_contiguous


def test_arrays_of_any_type_that_cannot_be_written_arrive() -> None:
    arrays = [make() for name, make in ARRAYS.items() if name != "masked"]
    for each in arrays:
        each.flags.writeable = False
    for name, one, back in zip(ARRAYS, arrays, results(identity, *[(one,) for one in arrays])):
        assert back.dtype == one.dtype and back.shape == one.shape, name
        assert back.flags.writeable or not one.flags.forc, name
        assert (back == one).all() if one.dtype.hasobject else back.tobytes() == one.tobytes(), name
    date = numpy.array("2000-01-01", "M8[D]")
    date.flags.writeable = False
    assert results(lambda: date, ()) == [date]


def add_one(array: Any) -> Any:
    array += 1
    return array


def read_only_ones(size: int) -> Any:
    ones = numpy.ones(size)
    ones.flags.writeable = False
    return ones


def test_arrays_inside_of_other_things_are_large_buffers_too() -> None:
    """In lists, dicts and objects; the same array twice is the same array there."""
    array = numpy.arange(MANY)
    value = {"a": [array, array], "b": (array[: MANY // 2], "text")}
    (back,) = results(identity, (value,))
    assert (back["a"][0] == array).all() and back["a"][0] is back["a"][1]
    assert (back["b"][0] == array[: MANY // 2]).all() and back["b"][1] == "text"


@pytest.mark.parametrize("make", [bytes, bytearray])
def test_large_bytes_as_an_argument_or_a_result_leave_the_stream(make: Any) -> None:
    """Both kinds arrive as what they are, as positional arguments, by keyword, and as results."""
    value = make(os.urandom(1 << 20) * 3)
    frozen = freeze.freeze(identity, (value,), {"more": value}, number=1)
    assert len(frozen.arguments) < 1000 and len(frozen.pieces) == 2
    assert frozen.pieces[0] is frozen.pieces[1]
    (back,) = results(identity, (value,))
    assert type(back) is make and back == value


def test_other_things_that_have_buffers_are_large_buffers_too() -> None:
    """What speaks pickle protocol 5 by itself, without numpy."""
    (back,) = results(identity, (Picture(bytearray(b"ab") * MANY * 2),))
    assert bytes(back.pixels[:4]) == b"abab" and len(back.pixels) == MANY * 4


class Picture:
    def __init__(self, pixels: Any) -> None:
        self.pixels = memoryview(pixels)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Picture, (pickle.PickleBuffer(self.pixels),)


def test_a_buffer_that_is_not_in_one_piece_says_what_it_said_before() -> None:
    """Pickle itself cannot do it; the message names the argument."""
    with pytest.raises(dummymp.NotPicklable, match="argument 'value'"):
        dummymp.run(identity, Picture(memoryview(array.array("d", bytes(1 << 22)))[::2]))


def test_the_text_of_a_call_leaves_large_arguments_out() -> None:
    """Nothing of it is loaded for a message."""
    frozen = freeze.freeze(identity, (numpy.zeros(MANY),), {}, number=1)
    assert freeze.arguments_text(frozen.arguments) == "..."


def test_what_cannot_travel_is_named_beside_a_large_array() -> None:
    """And its memory file is closed."""
    with pytest.raises(dummymp.NotPicklable, match="argument 'y'"):
        dummymp.run(divmod, numpy.zeros(MANY), (n for n in ()))
    with pytest.raises(dummymp.NotPicklable, match=r"at \[1\]"):
        dummymp.run(identity, [numpy.zeros(MANY), (n for n in ())])


# --- one's own ----------------------------------------------------------------------------------------------------


def test_what_a_task_writes_is_seen_by_nobody_else() -> None:
    """Not by the script, and not by the next task with the same array."""
    array = numpy.zeros(MANY)
    sums = results(write_and_sum, *[(array,)] * 6)
    assert sums == [MANY] * 6 and array.sum() == 0


def write_and_sum(array: Any) -> float:
    array += 1
    return float(array.sum())


def test_a_task_that_is_tried_again_has_its_arguments_as_they_were(tmp_path: Path) -> None:
    """Also after its worker died in the middle of writing."""
    dummymp.configure(retries=1)
    dummymp.run(write_and_die_once, numpy.zeros(MANY), str(tmp_path / "was here"))
    assert dummymp.results() == [MANY]


def write_and_die_once(array: Any, path: str) -> float:
    array += 1
    try:
        os.mkdir(path)
    except FileExistsError:
        return float(array.sum())
    os._exit(1)


def test_a_change_between_two_calls_is_seen() -> None:
    """Wherever in the array it is, and although all else is the same."""
    array = numpy.zeros(MANY)
    for place in (0, MANY // 2, MANY - 1, 0):
        dummymp.run(numpy.sum, array)
        array[place] += 1
    dummymp.run(numpy.sum, array)
    assert dummymp.results() == [0, 1, 2, 3, 4]


def test_the_same_array_is_stored_once() -> None:
    """As long as nothing changes in it; also if each call has a view of its own on it."""
    array = numpy.arange(MANY)
    frozen = [freeze.freeze(numpy.sum, (array[:],), {}, number=number) for number in range(100)]
    assert len({call.pieces[0] for call in frozen}) == 1 and memory_files() == 1
    array[0] = 5
    changed = freeze.freeze(numpy.sum, (array,), {}, number=100)
    assert changed.pieces[0] is not frozen[0].pieces[0]
    assert freeze.freeze(numpy.sum, (array,), {}, number=101).pieces == changed.pieces


def test_without_a_way_to_compare_each_call_is_stored_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without ctypes cannot tell quickly whether something changed, and must not guess."""
    monkeypatch.setattr(buffers, "_memory", ())
    array = numpy.zeros(MANY)
    for _ in range(3):
        dummymp.run(numpy.sum, array)
        array[7] += 1
    assert memory_files() == 3
    assert dummymp.results() == [0, 1, 2]


def test_a_view_that_a_task_keeps_stays_what_it_was() -> None:
    """Whatever the script does to its array, and whatever other tasks get."""
    array = numpy.zeros(MANY)
    dummymp.run(keep_and_sum, array)
    assert dummymp.results() == [0]
    for _ in range(3):
        array += 1
        dummymp.run(keep_and_sum, array)
    assert dummymp.results() == [0, MANY, MANY * 3, MANY * 6]


def keep_and_sum(array: Any) -> float:
    logging.__dict__.setdefault("_kept_by_a_test", []).append(array)
    return float(sum(kept.sum() for kept in logging.__dict__["_kept_by_a_test"]))


def test_results_are_the_scripts_own() -> None:
    """They can be written, and two results of the same task function are apart."""
    one, other = results(numpy.zeros, (MANY,), (MANY,))
    one += 1
    assert (one.sum(), other.sum()) == (MANY, 0)


def test_copy_args_false_freezes_large_arrays_when_the_task_starts() -> None:
    """What was changed until then is seen, and nothing is held while the call waits."""
    dummymp.configure(copy_args=False)
    array = numpy.zeros(MANY)
    dummymp.run(numpy.sum, array)
    assert memory_files() == 0
    array += 1
    assert dummymp.results() == [MANY]


# --- functions that carry arrays ---------------------------------------------------------------------------------

GLOBAL = """
    import dummymp, numpy, os
    dummymp.configure(priority="NUCLEAR", max_processes=2)
    table = numpy.zeros(2_000_000)

    def look(place):
        table[place] += 1          # its own copy
        return float(table.sum())

    def outer():
        inner = numpy.ones(2_000_000)
        return lambda: float(inner.sum())
"""


def test_a_function_that_reads_a_large_global_is_sent_once_and_finds_it_fresh(script: Script) -> None:
    """Each call has a view of its own; a change in between is seen; its memory is free afterwards; one hint."""
    done = script(
        GLOBAL
        + """
    from dummymp.freeze import freeze
    calls = [freeze(look, (1,), {}, number=n) for n in range(50)]
    assert len({call.function for call in calls}) == 1 and len(calls[0].function.data) < 10_000
    del calls

    for place in range(20):
        dummymp.run(look, place)
    table[0] = 5
    for place in range(20):
        dummymp.run(look, place)
    print(dummymp.results() == [1.0] * 20 + [6.0] * 20)
    dummymp.run(outer())
    print(dummymp.results()[-1])

    from dummymp import memoryfile
    print(memoryfile._held.count)
    """
    )
    assert done.stdout.split() == ["True", "2000000.0", "0"], done.stderr
    hints = done.stderr.strip().splitlines()
    assert len(hints) == 2
    assert "look() carries 16 MB along, above all the global variable 'table' (numpy.ndarray, 16 MB)" in hints[0]
    assert "give look() a parameter for it" in hints[0]
    assert "the outer variable 'inner'" in hints[1]


def test_the_hint_finds_what_a_helper_carries(caplog: pytest.LogCaptureFixture) -> None:
    """The variable may be that of another function, which the task calls; and need not be an array."""
    words = [str(number) for number in range(2_000_000)]

    def helper(word: str) -> bool:
        return word in words

    def search(word: str) -> bool:
        return helper(word)

    for _ in range(2):
        freeze.freeze(search, ("7",), {}, number=1)
    (record,) = caplog.records
    assert "search() carries 19 MB along" in record.getMessage()
    assert "the outer variable 'words' (list, 19 MB) of" in record.getMessage()


def test_a_worker_lets_go_of_what_a_function_carried(script: Script) -> None:
    """After the call no view of it is left in the worker."""
    done = script(
        GLOBAL
        + """
    def views():
        with open("/proc/self/maps") as file:
            return sum("memfd:" in line and int(line.split("-")[1].split()[0], 16) - int(line.split("-")[0], 16) > 1e6
                       for line in file)

    if True:
        dummymp.configure(max_processes=1)
        dummymp.run(look, 1)
        dummymp.run(numpy.sum, table)
        dummymp.run(views)
        print(dummymp.results())
    """
    )
    assert "0]" in done.stdout.split(), done


# --- freed --------------------------------------------------------------------------------------------------------


def test_memory_is_freed_when_tasks_end() -> None:
    """In whatever way they end."""
    for number in range(3):
        dummymp.run(numpy.sum, numpy.full(MANY, number))
    dummymp.run(operator.truediv, numpy.zeros(MANY), "not a number")
    assert memory_files() == 4
    dummymp.process_until_done()
    assert memory_files() == 0
    task = dummymp.run(numpy.sum, numpy.zeros(MANY))
    dummymp.kill(task)
    assert memory_files() == 0
    dummymp.run(numpy.sum, numpy.zeros(MANY))
    dummymp.killall()
    assert memory_files() == 0
    dummymp.run(numpy.sum, numpy.zeros(MANY))
    dummymp.reset()
    assert memory_files() == 0


def test_a_result_is_freed_when_the_script_drops_it() -> None:
    """Nothing but the result itself holds its memory."""
    (value,) = results(numpy.zeros, (MANY,))
    view = value.base
    while not isinstance(view, memoryfile.View):
        view = view.obj if isinstance(view, memoryview) else view.base
    assert memory_files() == 1
    dummymp.reset()
    del value, view
    assert memory_files() == 0


def test_a_task_that_is_killed_among_others_leaves_nothing() -> None:
    """Whether it waits, runs, or has ended: nothing is left of it, and the others are right."""
    for number in range(10):
        dummymp.run(numpy.full, MANY, number)
    dummymp.step(1)
    for number in range(3, 6):
        dummymp.kill(number)
    dummymp.process_until_done()
    for number, value in dummymp.get_returns().items():
        assert (value == number).all()
    del value


# --- where it cannot be had --------------------------------------------------------------------------------------


def works() -> None:
    """See that arrays, functions with arrays, and large results arrive."""
    array = numpy.arange(MANY * 1.0)
    array.flags.writeable = False
    for _ in range(3):
        dummymp.run(add_one, array)
        dummymp.run(lambda: float(array.sum()))
    dummymp.run(len, bytes(1 << 21))
    values = dummymp.results()
    assert all((value == array + 1).all() for value in values[0:6:2])
    assert values[1:6:2] == [array.sum()] * 3 and values[6] == 1 << 21


def test_without_anonymous_memory_there_is_a_file_without_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on macOS; nothing is ever to be seen of it in the folder for such files."""
    import tempfile

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    works()
    assert memoryfile._held.count > 0 or sys.version_info >= (3, 13)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC])
def test_without_memory_files_all_goes_through_the_stream(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Correct, and slower."""

    def fail() -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(memoryfile, "anonymous_file", fail)
    works()
    assert memory_files() <= 3  # Those of results, which workers could make.


def test_what_cannot_be_handed_over_goes_through_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many descriptors on their way, for example (ETOOMANYREFS)."""
    monkeypatch.setattr(Packets, "send", lambda self, fds: 0)
    works()


def test_what_cannot_be_mapped_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many mappings, for example."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOMEM, "no")

    monkeypatch.setattr(memoryfile, "View", fail)
    works()


def test_what_can_neither_be_handed_over_nor_mapped_goes_through_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(errno.ENOMEM, "no more mappings")

    monkeypatch.setattr(descriptors.Packets, "send", lambda self, fds: 0)
    monkeypatch.setattr(memoryfile, "_map", fail)
    works()


def test_a_limit_on_the_size_of_files_is_no_failure(script: Script) -> None:
    """RLIMIT_FSIZE holds for memory files, too."""
    done = script(
        """
        import dummymp, numpy, resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        for number in range(4):
            dummymp.run(numpy.add, numpy.full(400_000, number), 1)
        print([int(value[-1]) for value in dummymp.results()])
        """
    )
    assert done.stdout == "[1, 2, 3, 4]\n", done.stderr


@pytest.mark.parametrize("size", [0, 100_000])
def test_without_room_for_any_file_all_goes_through_the_stream(script: Script, size: int) -> None:
    """Neither for large buffers nor for what a worker shares with the script; deaths and slow items do no harm."""
    done = script(
        """
        import dummymp, os, resource, time
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(os.environ["LIMIT"]),) * 2)
        dummymp.configure(priority="NUCLEAR", max_processes=2)

        def double(data):
            return data * 2

        def dies(n):
            if n == 500:
                time.sleep(0.05)
            if n == 700:
                os._exit(1)
            return n

        for number in range(4):
            dummymp.run(double, bytes([number]) * 2_000_000)
        for number in range(500):
            dummymp.run(abs, number)
        print(dummymp.results() == [bytes([number]) * 4_000_000 for number in range(4)] + list(range(500)))
        inlet, outlet = os.pipe()
        pid = os.getpid()

        def dies_and_tells(n):
            fd = os.open(f"/proc/{pid}/fd/{outlet}", os.O_WRONLY)
            os.write(fd, b"%d " % n)
            os.close(fd)
            return dies(n)

        found = list(dummymp.map(dies_and_tells, range(2000), on_error="return"))
        print([number for number, value in enumerate(found) if value != number], found[700])
        print(sorted(map(int, os.read(inlet, 1 << 16).split())) == list(range(2000)))
        """,
        env=dict(os.environ, LIMIT=str(size)),
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "True" and lines[1].startswith("[700] worker") and "item 700" in lines[1], done.stderr
    assert lines[2] == "True", "an item began twice, because nobody knew what had ended"


def test_what_was_written_of_a_buffer_that_does_not_fit_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.pwrite, []

    def write_half(fd: int, data: Any, start: int) -> int:
        calls.append(start)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:5000] if len(calls) == 2 else data, start)

    monkeypatch.setattr(os, "pwrite", write_half)
    file = memoryfile.MemoryFile()
    file.add(memoryview(bytes(100)))
    with pytest.raises(OSError, match="full"):
        file.add(memoryview(bytes(10_000)))
    assert os.fstat(file.fd).st_size == 100


@pytest.mark.parametrize("limit", [20, 24, 32])
def test_large_buffers_leave_descriptors_for_a_worker(script: Script, limit: int) -> None:
    """Calls that wait do not take what it needs to start; they go through the stream."""
    done = script(
        """
        import os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["LIMIT"]),) * 2)
        import dummymp
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        for number in range(20):
            dummymp.run(len, bytes([number]) * 2_000_000)
        print(set(dummymp.results()))
        """,
        env=dict(os.environ, LIMIT=str(limit)),
    )
    assert done.stdout == "{2000000}\n", done.stderr


def test_with_few_descriptors_many_arrays_wait_and_arrive(script: Script) -> None:
    """Most of them in the stream; some descriptors are left for the script itself."""
    done = script(
        """
        import dummymp, numpy, os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        dummymp.configure(priority="NUCLEAR", max_processes=2)
        for number in range(500):
            dummymp.run(numpy.add, numpy.full(150_000, number), 1)
        print(len(os.listdir("/proc/self/fd")) < 40)
        dummymp.process_until_done()
        values = dummymp.get_returns()
        print(all((value == number + 1).all() for number, value in values.items()), len(values))
        print(len(os.listdir("/proc/self/fd")) < 50)
        """
    )
    assert done.stdout.split() == ["True", "True", "500", "True"], done.stderr


def test_a_result_arrives_although_the_script_has_no_descriptor_left(script: Script) -> None:
    """One is held back for it; it is read rather than mapped then."""
    done = script(
        """
        import dummymp, numpy, os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        dummymp.configure(priority="NUCLEAR", max_processes=1)
        dummymp.run(numpy.full, 400_000, 0)
        dummymp.process_until_done()
        for number in range(1, 5):
            dummymp.run(numpy.full, 400_000, number)
        files = []
        try:
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        dummymp.process_until_done()
        print(dummymp.get_errors())
        print([float(value.mean()) for value in dummymp.get_returns().values()])
        """
    )
    assert done.stdout.splitlines() == ["{}", "[0.0, 1.0, 2.0, 3.0, 4.0]"], done.stderr


def test_a_worker_without_descriptors_is_replaced(script: Script) -> None:
    """A task left so many files open that the memory of the next one does not fit in."""
    done = script(
        """
        import dummymp, numpy, os

        def use_up():
            try:
                while True:
                    os.open(os.devnull, os.O_RDONLY)
            except OSError:
                return "used up"

        dummymp.configure(priority="NUCLEAR", max_processes=1)
        dummymp.run(use_up)
        for number in range(4):
            dummymp.run(numpy.sum, numpy.full(400_000, number))
        print([str(value) for value in dummymp.results()])
        """
    )
    assert done.stdout.strip() == "['used up', '0', '400000', '800000', '1200000']", done.stderr


# --- deaths and full pipes ----------------------------------------------------------------------------------------


def test_a_worker_that_dies_while_it_pickles_a_large_result_leaves_nothing() -> None:
    """It dies when the buffer was written, before anything of the result is sent: the task fails, the next does not."""
    dummymp.run(Deadly, 100_000_000)
    dummymp.run(numpy.zeros, MANY)
    dummymp.process_until_done()
    assert isinstance(dummymp.get_errors()[0], dummymp.WorkerDied)
    assert len(dummymp.get_returns()[1]) == MANY


class Deadly:
    """Kills the process in which it is pickled, after its large buffer was written."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Deadly, (pickle.PickleBuffer(self.data), Killer())


class Killer:
    def __reduce_ex__(self, protocol: Any) -> Any:
        os.kill(os.getpid(), 9)


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_nothing_is_left_after_a_sigkill(script: Script, tmp_path: Path, victim: str) -> None:
    """Memory files have no names, so there is nothing to be left in a folder."""
    folders = [folder for folder in ("/dev/shm", "/tmp", "/var/tmp") if os.path.isdir(folder)]
    own = tmp_path / "tmp"
    own.mkdir()
    before = {folder: {name for name in os.listdir(folder) if "dummymp" in name} for folder in folders}
    done = script(
        f"""
        import dummymp, numpy, os, signal
        parent = os.getpid()
        dummymp.configure(priority="NUCLEAR", max_processes=2)

        def kill(array):
            os.kill(parent if {victim!r} == "parent" else os.getpid(), signal.SIGKILL)
            return array

        for number in range(4):
            dummymp.run(kill, numpy.full(400_000, number))
        dummymp.process_until_done()
        print(len(dummymp.get_errors()))
        """,
        env={**os.environ, "TMPDIR": str(own)},
    )
    assert done.returncode == (-9 if victim == "parent" else 0)
    assert os.listdir(own) == []
    assert {folder: {name for name in os.listdir(folder) if "dummymp" in name} for folder in folders} == before


@pytest.mark.parametrize("in_stream", [False, True])
def test_large_ones_in_both_directions_beside_much_output_do_not_deadlock(script: Script, in_stream: bool) -> None:
    """Full pipes on all sides: nobody waits for somebody who waits for him."""
    done = script(
        f"""
        import dummymp, numpy, sys
        if {in_stream}:
            from dummymp import buffers
            buffers.LARGE = 1 << 40
        dummymp.configure(priority="NUCLEAR", max_processes=2)

        def talk(array):
            if {in_stream}:
                from dummymp import buffers
                buffers.LARGE = 1 << 40
            for number in range(3000):
                print("line", number, "x" * 100)
            array += 1
            return array

        for number in range(4):
            dummymp.run(talk, numpy.full(12_500_000, number))
        dummymp.process_until_done()
        for value in dummymp.get_returns().values():
            print("value", int(value[0]), int(value[-1]), len(value))
        """
    )
    lines = done.stdout.splitlines()
    assert sum(line.startswith("line") for line in lines) == 12_000, done.stderr
    assert lines[-4:] == [f"value {number} {number} 12500000" for number in range(1, 5)]


# --- the parts ----------------------------------------------------------------------------------------------------


def parcel_of(value: Any, send: Callable[[list[int]], int]) -> memoryview:
    collector = Collector(find_again=False)
    data = dumps(value, take=collector)
    return memoryview(b"".join(bytes(part) for part in pack(data, collector.pieces, send)))


def test_packets_find_their_messages_by_number() -> None:
    """A message that was taken back does not leave its descriptors to the next one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent, worker = Packets(ours), WaitingPackets(theirs)
        parcels = [parcel_of(numpy.full(MANY, number), parent.send) for number in range(3)]
        ours.send(b"R")
        assert [packet_of(parcel) for parcel in parcels] == [1, 2, 3]
        orders = b""
        while not orders:
            orders += worker.receive() or b""
        assert orders == b"R"
        worker.drop(2)
        for number in (0, 2):
            fds = worker.take(number + 1)
            _, found, data = unpack(parcels[number], fds)
            close_all(fds)
            assert (loads(data, buffers=found) == number).all()
        del found, data


def test_descriptors_of_a_message_that_was_taken_back_may_come_later() -> None:
    """An order that its worker reads late takes back what was sent after it: the packet is still to be read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent, worker = Packets(ours), WaitingPackets(theirs)
        ours.send(b"R")
        assert worker.receive() == b"R"
        count = len(os.listdir("/proc/self/fd"))
        with open(os.devnull) as file:
            number = parent.send([file.fileno()])
        worker.drop(number)
        assert worker.receive() == b"" and len(os.listdir("/proc/self/fd")) == count


def test_what_nobody_took_is_closed_with_the_next_packet() -> None:
    """A result of a task that was killed."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent, worker = Packets(ours), Packets(theirs)
        count = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with open(os.devnull) as file:
                worker.send([file.fileno(), file.fileno()])
        close_all(parent.take(3))
        assert len(os.listdir("/proc/self/fd")) == count
        with pytest.raises(OSError, match="lost"):
            parent.take(4)


def test_after_a_loss_the_script_takes_packets_again() -> None:
    """What came while it had no descriptor left is lost, and nothing after that."""
    import resource

    ours, theirs = socket.socketpair()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ours, theirs, open(os.devnull) as file:
        parent, worker = Packets(ours), Packets(theirs)
        worker.send([file.fileno(), file.fileno()])
        worker.send([file.fileno()])
        free = os.dup(file.fileno())
        os.close(free)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            with pytest.raises(OSError, match="lost"):
                parent.take(1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        worker.send([file.fileno()])
        close_all(parent.take(3))


def test_a_call_with_more_files_than_fit_into_a_packet_arrives() -> None:
    """Each array was stored by a call of its own before; the rest goes through the stream."""
    arrays = [numpy.full(MANY // 2, number) for number in range(buffers.MAX_FILES + 3)]
    for one in arrays:
        dummymp.run(numpy.sum, one)
    dummymp.run(identity, arrays)
    last = dummymp.results()[-1]
    assert all((one == number).all() for number, one in enumerate(last))


def test_the_reserve_is_let_go_with_the_workers() -> None:
    """No descriptor is held back while there are no workers."""
    dummymp.run(len, "abc")
    dummymp.process_until_done()
    assert descriptors.reserve._fd >= 0
    dummymp.reset()
    assert descriptors.reserve._fd < 0
