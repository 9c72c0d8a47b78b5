"""NumPy arrays of every layout, kind and size: they travel, keep their layout, and can be written where they arrive."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dummymp
from dummymp.buffers import LARGE, Collector
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
