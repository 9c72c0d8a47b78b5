"""NumPy arrays of every layout, kind and size: they travel, keep their layout, and can be written where they arrive."""

from __future__ import annotations

import copyreg
import pickle
import threading
from typing import Any

import pytest
from conftest import Script
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp.buffers import LARGE, Collector
from dummymp.freeze import freeze
from dummymp.pickling import dumps, loads

np = pytest.importorskip("numpy")

KINDS = [
    "u1", "<i4", ">i4", "<f8", ">f8", "f2", "c16", "?", "S5", "<U3", ">U3", "V7", "M8[ns]", "m8[D]", "O",
    [("a", "<i4"), ("b", ">f8")], [("a", "u1"), ("sub", "<f4", (2, 2))], [("when", "M8[s]"), ("text", "<U2")],
]  # fmt: skip
# Around the sizes, in bytes, from which on a pickler, the connection, and we ourselves take other ways.
SIZES = st.one_of(
    st.integers(0, 300),
    *(st.integers(size - 40, size + 40) for size in (1 << 16, LARGE)),
    st.integers(1 << 16, LARGE),
)


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """Make an array: of a kind, a size, a shape, an order, with strides, read-only or not."""
    kind = np.dtype(draw(st.sampled_from(KINDS)))
    count = max(0, draw(SIZES) // kind.itemsize)
    data = np.arange(count, dtype="u4")
    array = data.astype("O") if kind.hasobject else np.resize(data.view("u1"), count * kind.itemsize).view(kind)
    if kind == np.dtype("?"):
        array = array.view("u1") % 2 == 1
    columns = draw(st.sampled_from([1, 3, 7]))
    array = array[: count - count % columns].reshape(-1, columns)
    layout = draw(st.sampled_from(["C", "F", "flat", "every other", "backwards", "part", "3d", "one", "broadcast"]))
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "flat":
        array = array.ravel()
    elif layout == "every other":
        array = array[::2]
    elif layout == "backwards":
        array = array[::-1, ::-1]
    elif layout == "part":
        array = np.asfortranarray(array)[1:, :2]
    elif layout == "3d":
        array = np.asfortranarray(array[: len(array) // 2 * 2].reshape(2, -1, columns))
    elif layout == "one":
        array = np.resize(array, ()) if array.size else np.zeros((), kind)
    elif layout == "broadcast":
        array = np.broadcast_to(array[:1], (3, *array[:1].shape))
    if draw(st.booleans()):
        array = array.view()
        array.flags.writeable = False
    return array


def there(value: Any) -> Any:
    """Send it as a call sends its arguments, and as a result goes back."""
    collector = Collector(find_again=False)
    data = dumps(value, take=collector)
    return loads(data, buffers=[pickle.PickleBuffer(bytearray(_bytes_of(piece))) for piece in collector.pieces])


def _bytes_of(piece: Any) -> bytes:
    import os

    return os.pread(piece.file.fd, piece.length, piece.start)


@given(array=arrays())
def test_any_array(array: Any) -> None:
    """It arrives with the same kind, shape, order and content, and can be written."""
    got = there([array])[0]
    assert (type(got), got.shape) == (type(array), array.shape)
    if array.dtype.kind == "M" or array.dtype.hasobject:  # Those numpy sends in its own way.
        assert (got == array).all() and got.dtype.kind == array.dtype.kind
    else:
        assert got.dtype == array.dtype and got.tobytes() == array.tobytes()
    assert got.flags.writeable
    if array.flags.forc:
        assert (got.flags.c_contiguous, got.flags.f_contiguous) == (array.flags.c_contiguous, array.flags.f_contiguous)


@pytest.mark.parametrize("size", [800, 480_000, 4_800_000])
def test_what_data_frames_give(size: int, start_method: str) -> None:
    """Read-only arrays in Fortran order, as today's DataFrame.to_numpy() gives them: argument, captured, and result."""
    table = np.asfortranarray(np.arange(size / 8).reshape(-1, 4))
    table.flags.writeable = False

    def fit(x: Any) -> Any:
        x += 1  # It is the task's own.
        answer = np.asfortranarray(x + table)
        answer.flags.writeable = False
        return answer

    answer = dummymp.run(fit, table).result()
    assert (answer == 2 * table + 1).all() and answer.flags.f_contiguous and answer.flags.writeable


# --- of classes made of ndarray ----------------------------------------------------------------------------------

COUNTS = [10, LARGE // 4]  # Small ones, in the stream, and large ones.


class Noted(np.ndarray):  # type: ignore[misc, name-defined]
    """Has an attribute, and says nothing of how it travels; numpy alone would lose it."""

    def __array_finalize__(self, other: Any) -> None:
        self.note = getattr(other, "note", None)


class Quantity(Noted):
    """Adds its attributes to what numpy gives, as astropy's Quantity does."""

    def __reduce__(self) -> Any:
        make, args, state = super().__reduce__()
        return make, args, (state, {"note": self.note})

    def __setstate__(self, state: Any) -> None:
        state, attributes = state
        super().__setstate__(state)
        vars(self).update(attributes)


class ByName(Quantity):
    """Names numpy's class, where it would better say super()."""

    def __setstate__(self, state: Any) -> None:
        np.ndarray.__setstate__(self, state[0])
        vars(self).update(state[1])


class ByProtocol(Noted):
    """Does it all itself."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _by_protocol, (np.asarray(self), self.note)


def _by_protocol(array: Any, note: Any) -> Any:
    array = array.view(ByProtocol)
    array.note = note
    return array


class AlsoByProtocol(Quantity):
    """Adds something there."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        made = super().__reduce_ex__(protocol)
        return (*made[:2], (made[2], "added"))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.added = state[1]


class WithItself(Quantity):
    """Refers to itself."""

    def __reduce__(self) -> Any:
        made = super().__reduce__()
        return (*made[:2], (made[2], {"me": [self]}))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.me = state[1]["me"][0]


class WithSum(Quantity):
    """Calculates something from what is in it, on both sides."""

    def __reduce__(self) -> Any:
        made = super().__reduce__()
        return (*made[:2], (*made[2], float(np.asarray(self).sum())))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:2])
        self.sums = (state[2], float(np.asarray(self).sum()))


class Slotted(Noted):
    """Has what a view of it would not have."""

    __slots__ = ("extra",)

    def __reduce__(self) -> Any:
        made = super().__reduce__()
        return (*made[:2], (made[2], self.note, self.extra))

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.note, self.extra = state[1:]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", [Noted, Quantity, ByName, ByProtocol, AlsoByProtocol, WithItself, WithSum, Slotted])
@pytest.mark.parametrize("layout", ["C", "F", "every other", "read-only", "big-endian", "dates", "objects"])
def test_classes_of_the_user(kind: Any, count: int, layout: str) -> None:
    """Class, attributes and content arrive, and can be written; what the class does for it sees the whole array."""
    array = np.arange(count).astype({"big-endian": ">f8", "dates": "M8[s]"}.get(layout, "f8")).reshape(2, -1)
    array = {"F": array.T, "every other": array[:, ::2], "objects": array[:, :9].astype("O")}.get(layout, array)
    if kind is WithSum and layout == "dates":
        return
    array = array.view(kind)
    array.note = ["metres", kind]
    array.extra = "more"
    array.flags.writeable = layout != "read-only"
    got = there([array])[0]
    assert (type(got), got.dtype.kind, got.note, got.shape) == (kind, array.dtype.kind, array.note, array.shape)
    assert (np.asarray(got) == np.asarray(array)).all() and got.flags.writeable
    assert got.flags.f_contiguous == (layout == "F")
    if kind is WithSum:
        assert got.sums == (float(np.asarray(array).sum()),) * 2
    assert kind is not WithItself or got.me is got
    assert kind is not AlsoByProtocol or got.added == "added"
    if kind is Slotted:
        assert got.extra == "more"


@pytest.mark.parametrize("count", COUNTS)
def test_classes_of_numpy(count: int) -> None:
    """Matrices and arrays of records are what they were."""
    numbers = np.arange(count)
    records = np.rec.fromarrays([numbers, numbers / 2], names="number,half")
    for array in (numbers.view(np.matrix), records):
        got = there([array])[0]
        assert (type(got), got.dtype, got.shape) == (type(array), array.dtype, array.shape)
        assert (got == array).all()
    assert there(records).half[3] == 1.5 and type(there(records)[3]) is np.record


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("mask", [None, "some", "hard"])
@pytest.mark.parametrize("kind", ["f8", "S3", [("a", "f8"), ("b", "i4")], "M8[s]", "O"])
def test_masked_arrays(count: int, mask: Any, kind: Any) -> None:
    """Mask, fill value, and whether the mask is hard, are what they were."""
    array = np.ma.masked_array(np.zeros(count, kind))
    if mask is not None:
        array[::3] = np.ma.masked
        array.fill_value = array.data[0]
    if mask == "hard":
        array.harden_mask()
    got = there([array])[0]
    assert type(got) is np.ma.MaskedArray and (got.dtype, got.hardmask) == (array.dtype, array.hardmask)
    assert (got.data == array.data).all() and repr(got.fill_value) == repr(array.fill_value)
    assert (np.ma.getmask(got) is np.ma.nomask) == (np.ma.getmask(array) is np.ma.nomask)
    assert (np.ma.getmaskarray(got) == np.ma.getmaskarray(array)).all()
    if kind == "f8":
        got[0] = 1
        assert (got.mask[0] if mask else got.mask) == (mask == "hard")
    assert there(np.ma.masked) is np.ma.masked


def test_masked_arrays_of_other_classes() -> None:
    """Masked matrices, and classes made of the masked array."""

    class Image(np.ma.MaskedArray):  # type: ignore[misc]
        pass

    image = np.ma.masked_equal(np.eye(500), 1).view(Image)
    matrix = np.ma.masked_array(np.eye(500).view(np.matrix), mask=np.eye(500))
    for array in (image, matrix):
        got = there(array)
        assert (type(got), got.baseclass, got.sum()) == (type(array), array.baseclass, array.sum())


def make_large(what: str) -> Any:
    numbers = np.arange(float(LARGE))
    if what == "masked":
        return np.ma.masked_array(numbers, mask=np.resize(np.array([True, False, False, False]), numbers.shape))
    return numbers.view({"matrix": np.matrix, "records": np.recarray, "Noted": Noted, "Quantity": Quantity}[what])


@pytest.mark.parametrize("what", ["masked", "matrix", "records", "Noted", "Quantity"])
def test_what_many_calls_get_is_stored_once(what: str) -> None:
    """As a plain array: again only when something in it has changed. The stream of a call stays small."""
    array = make_large(what)
    calls = [freeze(len, ([array],), {}, number=number) for number in range(3)]
    assert calls[0].pieces and all(len(call.arguments) < 3000 for call in calls)
    assert all(mine is first for call in calls for mine, first in zip(call.pieces, calls[0].pieces))
    np.asarray(array)[..., 7] = 77
    changed = freeze(len, ([array],), {}, number=3)
    assert changed.pieces[0] is not calls[0].pieces[0]
    if what == "masked":
        assert changed.pieces[1] is calls[0].pieces[1]
        array.mask[7] = True
        assert freeze(len, ([array],), {}, number=4).pieces[1] is not calls[0].pieces[1]


@pytest.mark.parametrize("what", ["masked", "matrix", "records", "Noted", "Quantity"])
@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_each_task_has_its_own(what: str, engine: str) -> None:
    """It sees the array as it was at its `run`, writes into its own, and gives back one of the same class."""
    dummymp.configure(engine=engine)
    array = make_large(what)
    array.note = "a"

    def change(x: Any, number: float) -> Any:
        x[..., 5] += number
        return x

    tasks = [dummymp.run(change, array, 1)]
    np.asarray(array)[..., 5] = 100
    tasks += [dummymp.run(change, array, number) for number in (2, 3)]
    for task, expected in zip(tasks, (6, 102, 103)):
        got = task.result()
        assert type(got) is type(array) and np.asarray(got)[..., 5] == expected
        assert what in ("masked", "matrix", "records") or got.note == "a"
        if what == "masked":
            assert got.count() == array.count()
    assert np.asarray(array)[..., 5] == 100


def test_what_cannot_travel_of_an_array_is_left_out() -> None:
    """A lock among the attributes of an array whose class says nothing of it: numpy would leave out all of them."""
    array = np.arange(3).view(Noted)
    array.note, array.lock, array.other = "a", threading.Lock(), array
    got = there(array)
    assert got.note == "a" and got.other is got and not hasattr(got, "lock")


def test_classes_with_a_registered_way() -> None:
    """What a script has registered with copyreg for its class is what happens."""

    class Registered(np.ndarray):  # type: ignore[misc, name-defined]
        pass

    copyreg.pickle(Registered, lambda array: (int, (7,)))
    try:
        assert there([np.arange(3).view(Registered)]) == [7]
    finally:
        del copyreg.dispatch_table[Registered]


def test_classes_that_are_told_of_what_is_made_of_them() -> None:
    """A class that counts its subclasses gets none for the sake of travelling, nor one with a metaclass of its own."""
    made = []

    class Counting(Quantity):
        def __init_subclass__(cls) -> None:
            made.append(cls)

    class Meta(type):
        pass

    class WithMeta(Quantity, metaclass=Meta):
        pass

    for kind in (Counting, WithMeta):
        array = np.arange(float(LARGE)).view(kind)
        array.note = 1
        got = there(array)
        assert (type(got), got.note, got[9]) == (kind, 1, 9) and not made


def test_the_class_in_a_task_is_the_one_of_numpy(script: Script) -> None:
    """numpy says that a recarray is from `numpy.rec`, which need not be loaded."""
    done = script("""
        import numpy as np, dummymp

        def look(x):
            return type(x) is np.recarray and isinstance(x, np.recarray)

        print(dummymp.run(look, np.zeros(3).view(np.recarray)).result())
    """)
    assert (done.stdout, done.stderr) == ("True\n", "")
