"""Arrays in files, `numpy.memmap`: they travel as a place in the file, and what a task writes reaches it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp import memmaps
from dummymp.buffers import LARGE, Collector
from dummymp.freeze import freeze
from dummymp.pickling import dumps, loads

np = pytest.importorskip("numpy")

ENGINES = ["processes", "inline"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    dummymp.configure(engine=request.param)
    return str(request.param)


def make(path: Path, *, mode: str = "r+", count: int = 1000, kind: str = "f8", **options: Any) -> Any:
    """Make a file with the numbers 0, 1, 2, ... in it, and map it."""
    np.arange(count).astype(kind).tofile(path)
    return np.memmap(path, kind, mode, **options)


def weight(value: Any) -> int:
    """Give the bytes that a value travels with, in the stream and beside it."""
    collector = Collector(find_again=False)
    return len(dumps([value], take=collector)) + sum(map(len, collector.pieces))


def there(value: Any) -> Any:
    return loads(dumps([value]))[0]


# --- by file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_what_tasks_write_is_in_the_file(mode: str, tmp_path: Path, engine: str) -> None:
    """Each task fills a part of a map, as an argument; "w+" does not empty the file again."""
    out = np.memmap(tmp_path / "out", "f8", mode=mode, shape=(40, 5000)) if mode == "w+" else None
    if out is None:
        (tmp_path / "out").write_bytes(bytes(40 * 5000 * 8))
        out = np.memmap(tmp_path / "out", "f8", mode=mode, shape=(40, 5000))
    out[:, 0] = -1

    def fill(where: Any, row: int) -> str:
        where[row, 1:] = row
        return str(where.mode)

    assert {dummymp.run(fill, out, row).result() for row in range(40)} == {"r+"}
    assert (out[:, 0] == -1).all() and (out[:, 1:] == np.arange(40)[:, None]).all()
    assert (np.fromfile(tmp_path / "out").reshape(40, 5000) == out).all()


def test_everywhere_in_a_call(tmp_path: Path, engine: str) -> None:
    """Captured, in a list, in an object, as an item of `map`, inside a task: all write into the same file."""
    out = make(tmp_path / "out", kind="i8")

    class Box:
        def __init__(self, array: Any) -> None:
            self.array = array

    def captured() -> None:
        out[0] = 100

    def inside(array: Any) -> None:
        dummymp.run(captured).result()
        array[4] = 104

    def put(pair: tuple[Any, int]) -> None:
        pair[0][pair[1]] = 200

    dummymp.run(captured)
    dummymp.run(lambda arrays: arrays[0].__setitem__(1, 101), [out])
    dummymp.run(lambda box: box.array.__setitem__(2, 102), Box(out))
    dummymp.run(lambda *, array: array.__setitem__(3, 103), array=out)
    dummymp.run(inside, out)
    dummymp.process_until_done()
    list(dummymp.map(put, [(out, 10), (out, 11)]))
    assert list(out[:6]) == [100, 101, 102, 103, 104, 5] and list(out[10:13]) == [200, 200, 12]


def test_it_arrives_as_what_it_is(tmp_path: Path) -> None:
    """Class, kind, shape, order, mode, offset and file name; a mode "r" cannot be written there either."""
    make(tmp_path / "a", count=10_000)
    for name in (tmp_path / "a", str(tmp_path / "a")):
        array = np.memmap(name, ">f8", "r", offset=16, shape=(30, 40, 5), order="F")
        got = there(array)
        assert type(got) is np.memmap and (got == array).all() and got.base is not None
        for attribute in ("dtype", "shape", "strides", "mode", "offset", "filename"):
            assert getattr(got, attribute) == getattr(array, attribute)
        assert type(got.filename) is type(array.filename)
        with pytest.raises(ValueError, match="read-only"):
            got[0] = 1
    array = there(np.memmap(tmp_path / "a", "f8", "r+"))
    array[7] = -7
    array.flush()
    assert np.fromfile(tmp_path / "a")[7] == -7
    array.flags.writeable = False
    assert not there(array).flags.writeable


def test_nothing_is_copied(tmp_path: Path) -> None:
    """A map of 8 GB, nearly all of it a hole in the file, is an argument of a few hundred bytes; so are its parts."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(8 << 30)
    large = np.memmap(tmp_path / "large", "f8", "r+").reshape(1 << 15, -1)
    for array in (large, large[5:, ::3], np.asarray(large).T, np.ma.masked_array(large), large.view(np.recarray)):
        assert weight(array) < 1500
    tasks = [dummymp.run(lambda rows: rows.nbytes, large) for _ in range(10)]
    assert {task.result() for task in tasks} == {8 << 30}


def test_rows_that_are_only_read(tmp_path: Path) -> None:
    """Small parts with mode "r" travel as their bytes, which is faster, and cannot be written either."""
    array = make(tmp_path / "a", mode="r", shape=(10, 100))
    rows = [array[3], np.asarray(array)[3], array[::3, ::-7], array[2:4, 5:7].T, array.T, array.view(np.recarray)[4]]
    for row in rows:
        got = there(row)
        assert (type(got), got.dtype, got.shape) == (type(row), row.dtype, row.shape) and (got == row).all()
        assert got.flags.f_contiguous == row.flags.f_contiguous or not row.flags.forc
        assert not got.flags.writeable and getattr(got, "filename", None) is None
    assert list(dummymp.map(np.sum, array)) == list(array.sum(1))


KINDS = [">i2", "f8", [("a", "u1"), ("b", "<f4", (2,))], "M8[s]", "S3"]
SLICES = st.tuples(*[st.sampled_from([None, 0, 1, -2, 3]), st.sampled_from([None, 1, -1, 9])])
STEPS = st.sampled_from([None, 1, 2, -1, -3])


@given(
    kind=st.sampled_from(KINDS),
    order=st.sampled_from("CF"),
    offset=st.sampled_from([0, 1, 4096, 70_001]),
    cuts=st.lists(st.builds(lambda ends, step: slice(*ends, step), SLICES, STEPS), max_size=3),
    turn=st.booleans(),
    plain=st.booleans(),
)
def test_any_part_of_a_file(kind: Any, order: str, offset: int, cuts: list[Any], turn: bool, plain: bool) -> None:
    """Slices, steps, backwards, transposed, as a memmap or a plain array: the same bytes of the same file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(bytes(range(256)) * 600)
        array = np.memmap(path, kind, "r+", offset, (10, 7, 4), order)[tuple(cuts)]
        array = array.T if turn else array
        array = np.asarray(array) if plain else array
        if not array.size:
            return
        got = there(array)
        assert (type(got), got.dtype, got.shape) == (type(array), array.dtype, array.shape)
        assert got.strides == array.strides and got.tobytes() == array.tobytes()
        got[...] = np.zeros((), kind)
        assert not any(array.tobytes())
        again = there(got)  # What has travelled once travels on.
        again[...] = np.frombuffer(b"\x01" * 20, kind, 1)[0]
        assert set(array.tobytes()) == {1}


def test_a_result_is_a_place_in_a_file_too(tmp_path: Path, engine: str) -> None:
    """A task makes a file, and returns the map of it, or a part: that is what arrives, without a copy."""

    def compute(folder: str) -> Any:
        array = np.memmap(os.path.join(folder, "made"), "f8", "w+", shape=(1000, 1000))
        array[3] = 3
        return array, array[3:5]

    whole, part = dummymp.run(compute, str(tmp_path)).result()
    assert whole.filename == str(tmp_path / "made") and whole[3, 5] == 3
    whole[4, 4] = 44
    assert part[1, 4] == 44 and np.fromfile(tmp_path / "made")[4004] == 44


def test_calls_that_are_not_copied(tmp_path: Path) -> None:
    """With copy_args=False, and a file that another program lengthens meanwhile."""
    array = make(tmp_path / "a")
    dummymp.configure(copy_args=False)
    task = dummymp.run(lambda x: float(x.sum()), array)
    array[0] = 1000
    with open(tmp_path / "a", "ab") as file:
        file.write(bytes(1000))
    assert task.result() == array.sum()


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_as_numpy_opens_them(mode: str, tmp_path: Path) -> None:
    """numpy.load(..., mmap_mode=...) and open_memmap: behind the header of an .npy file."""
    np.save(tmp_path / "a.npy", np.arange(12_000.0).reshape(3, -1))
    array = np.load(tmp_path / "a.npy", mmap_mode=mode)
    assert dummymp.run(lambda x: (x.offset, float(x[2, -1])), array).result() == (array.offset, 11_999)
    new = np.lib.format.open_memmap(tmp_path / "b.npy", "w+", "f4", (5, 5), fortran_order=True)
    dummymp.run(lambda x: x.__setitem__((1, 2), 12), new).result()
    assert np.load(tmp_path / "b.npy")[1, 2] == 12


def test_a_class_of_the_user_made_of_it(tmp_path: Path) -> None:
    """It keeps its attributes, and its file."""

    class Tracks(np.memmap):  # type: ignore[misc, name-defined]
        rate = 0

    np.arange(10.0).tofile(tmp_path / "a")
    tracks = Tracks(tmp_path / "a", "f8", "r+")
    tracks.rate = 44100
    got = there(tracks)
    assert (type(got), got.rate, got.filename) == (Tracks, 44100, tmp_path / "a")
    got[1] = -1
    assert tracks[1] == -1
    (tmp_path / "a").unlink()
    got = there(tracks)
    assert (type(got), got.rate, got.filename, got[1]) == (Tracks, 44100, None, -1)


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script may go elsewhere after it has opened a file by a relative name."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    make(Path("a"))
    array = np.memmap("a", "f8", "r+")
    with open("a", "r+b") as file:
        by_file = np.memmap(file, "f8", "r+")
    monkeypatch.chdir(tmp_path / "elsewhere")
    make(Path("a"), count=5)
    for number, each in enumerate((array, by_file)):
        dummymp.run(lambda array, number: array.__setitem__(number, -1), each, number).result()
    assert list(np.fromfile(tmp_path / "a")[:3]) == [-1, -1, 2]


# --- by copy -----------------------------------------------------------------------------------------------------


def test_what_was_changed_in_memory_alone_is_not_lost(tmp_path: Path, engine: str) -> None:
    """Mode "c", copy on write: what the script has changed is not in the file, so a copy travels."""
    array = make(tmp_path / "a", mode="c", count=1000)
    array[5] = 55

    def change(x: Any) -> tuple[float, float]:
        x[6] = 66
        return float(x[5]), float(x[6])

    assert dummymp.run(change, array).result() == (55, 66)
    assert array[6] == 6 and np.fromfile(tmp_path / "a")[5] == 5


@pytest.mark.parametrize("what", ["deleted", "replaced", "moved", "link", "no name"])
def test_a_file_that_no_name_leads_to(what: str, tmp_path: Path) -> None:
    """Deleted, replaced by another one of the same size, moved, or without a name: a copy of what is mapped travels."""
    path = tmp_path / "a"
    make(tmp_path / "other", kind="i8")
    make(path)
    if what == "no name":
        with tempfile.TemporaryFile() as file:
            np.arange(1000.0).tofile(file)
            array = np.memmap(file, "f8", "r+")
    elif what == "link":
        (tmp_path / "link").symlink_to(path)
        array = np.memmap(str(tmp_path / "link"), "f8", "r+")
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(tmp_path / "other")
    else:
        array = np.memmap(path, "f8", "r+")
    if what == "deleted":
        path.unlink()
    elif what == "replaced":
        (tmp_path / "other").replace(path)
    elif what == "moved":
        path.rename(tmp_path / "c")
        make(path, kind="i8")
    also_open = np.memmap(path, "f8", "r") if path.exists() else None
    got = dummymp.run(lambda x: x + 0 if x.filename is None else None, array).result()
    assert (got == np.arange(1000.0)).all()
    del also_open


def test_copies_are_made_once(tmp_path: Path) -> None:
    """A large map that travels as a copy is stored once for many calls, and again when it has changed."""
    array = make(tmp_path / "a", mode="c", count=LARGE // 4)
    calls = [freeze(len, (array,), {}, number=number) for number in range(2)]
    array[1] = 11
    calls.append(freeze(len, (array,), {}, number=2))
    first, second, third = (call.pieces[0] for call in calls)
    assert first is second is not third and sum(len(call.pieces) for call in calls) == 3


def test_strides_made_by_hand(tmp_path: Path) -> None:
    """A view that reaches beyond its map is no part of the file, so far as numpy knows."""
    array = make(tmp_path / "a", count=8192)[:8]
    beyond = np.lib.stride_tricks.as_strided(make(tmp_path / "b", count=8192, shape=(8,)), (10,))
    assert memmaps.reduce_in_file(array) and memmaps.reduce_in_file(beyond) is None
    assert (there(beyond) == np.arange(10)).all()


def test_what_has_no_memory_in_the_file(tmp_path: Path) -> None:
    """What numpy calculates from a map is of its class, and no map; an empty part needs no file."""
    array = make(tmp_path / "a", mode="r+")
    for value in (array + 1, array[[1, 2]], array[:0], array.copy()):
        got = there(value)
        assert (got == value).all() and got.flags.writeable


# --- the file is gone when the task begins ---


@pytest.mark.parametrize("how", ["deleted", "replaced", "cut"])
def test_a_file_that_changes_hands_after_run(how: str, tmp_path: Path, engine: str) -> None:
    """The task fails, and says why; it never reads another file, nor makes one longer."""
    array = make(tmp_path / "a")
    task = dummymp.run(len, array)
    del array  # What an exception holds would hold its file open.
    if how == "deleted":
        (tmp_path / "a").unlink()
    elif how == "replaced":
        make(tmp_path / "b")
        (tmp_path / "b").replace(tmp_path / "a")
    else:
        os.truncate(tmp_path / "a", 100)
    with pytest.raises(FileNotFoundError, match=r"its file has been deleted, replaced or cut: .*a'"):
        task.result()
    assert how != "cut" or (tmp_path / "a").stat().st_size == 100


# --- where the system tells less ---


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody says which file is mapped (macOS), it is one that this process has open, of that size."""

    def no_such_file(*args: Any, **options: Any) -> Any:
        if str(args[0]).startswith("/proc"):
            raise FileNotFoundError
        return open(*args, **options)

    monkeypatch.setattr(memmaps, "open", no_such_file, raising=False)
    array = make(tmp_path / "a")
    assert memmaps.reduce_in_file(array)
    make(tmp_path / "b")
    (tmp_path / "b").replace(tmp_path / "a")
    assert memmaps.reduce_in_file(array) is None
