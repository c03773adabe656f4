from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from mpflow._wire.codec import Codec, EncodeError, is_portable

np = pytest.importorskip("numpy")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

CODECS = [Codec(trust=True), Codec()]


@pytest.fixture(params=CODECS, ids=["wire", "disk"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return request.param  # type: ignore[no-any-return]


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert a.tobytes() == b.tobytes()


kinds = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.unsigned_integer_dtypes(endianness="?"),
    hnp.floating_dtypes(endianness="?"), hnp.complex_number_dtypes(endianness="?"), hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(), hnp.byte_string_dtypes(min_len=1), hnp.unicode_string_dtypes(min_len=1),
)  # fmt: skip
dtypes = st.one_of(kinds, hnp.array_dtypes(kinds, max_size=3, allow_subarrays=True))
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)


@given(hnp.arrays(dtypes, shapes), st.sampled_from(["C", "F", "gaps", "backwards", "turned"]))
def test_array_of_any_dtype_and_layout_comes_back(array: Any, layout: str) -> None:
    if layout in "CF":
        array = np.array(array, order=layout)
    elif layout == "turned":
        array = array.T
    elif array.ndim:
        array = array[:: 2 if layout == "gaps" else -1]
    for codec in CODECS:
        data, flags = codec.encode_flagged({"a": array})
        back = codec.decode(data)["a"]
        assert_same(back, array)
        assert is_portable(flags)
        assert back.flags.writeable
        if layout in "CF":
            assert (back.flags.c_contiguous, back.flags.f_contiguous) == (
                array.flags.c_contiguous,
                array.flags.f_contiguous,
            )


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5), np.zeros((0, 3)), np.zeros((2, 0, 3), "M8[ns]"), np.array([1, None, "x", (2,)], object),
        np.array([[1], [bytearray(b"x")]], object), np.zeros(2, np.longdouble), np.zeros(2, "c16"), np.zeros(3, ">u2"),
        np.array(["NaT", "2020-01-01"], "M8[25s]"), np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
        np.zeros(2, {"names": ["a", "b"], "formats": ["i4", ">M8[D]"], "offsets": [8, 0], "itemsize": 20}),
        np.zeros(1, [(("title", "a"), "i4")]), np.zeros(2, [("a", [("b", "U3"), ("c", "f4", (2, 2))])]),
        np.broadcast_to(np.arange(3), (2, 3)), np.frombuffer(b"abcdefgh", "u1"), np.zeros(3, "V5"),
    ],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_odd_array_comes_back_as_data(codec: Codec, array: Any) -> None:
    data, flags = codec.encode_flagged([array])
    (back,) = codec.decode(data)
    assert (type(back), back.dtype, back.shape, repr(back)) == (type(array), array.dtype, array.shape, repr(array))
    assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert is_portable(flags)


@pytest.mark.parametrize(
    "scalar",
    [
        np.float32(1.5), np.float64(-0.0), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True), np.str_("a\ud800"),
        np.bytes_(b"ab"), np.datetime64("2020-01-01T00:00", "ns"), np.timedelta64(3, "25s"), np.complex64(1j),
        np.longdouble(1) / 3, np.void(b"abc"), np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])[0], np.str_(""),
        np.datetime64("NaT", "s"),
    ],
    ids=lambda scalar: type(scalar).__name__,
)  # fmt: skip
def test_scalar_keeps_its_type(codec: Codec, scalar: Any) -> None:
    back = codec.decode(codec.encode({"s": scalar}))["s"]
    if scalar.dtype.char == "g":  # has padding
        assert type(back) is type(scalar) and back == scalar
    else:
        assert_same(back, scalar)


@pytest.mark.parametrize("dtype", ["f4", ">i2", "M8[D]", "U5", object, [("a", "i4")]])
def test_dtype_is_a_value(codec: Codec, dtype: Any) -> None:
    assert codec.decode(codec.encode(np.dtype(dtype))) == np.dtype(dtype)


def test_what_a_description_does_not_say_is_pickled_or_refused() -> None:
    matrix = np.ma.masked_array([1, 2], [True, False])
    described = np.zeros(2, np.dtype("i4", metadata={"unit": "m"}))
    for value in (matrix, described):
        back = CODECS[0].decode(CODECS[0].encode(value))
        assert type(back) is type(value) and back.dtype == value.dtype
        with pytest.raises(EncodeError):
            CODECS[1].encode(value)


def test_arrays_of_one_message_do_not_share_memory(codec: Codec) -> None:
    array = np.arange(5)
    a, b = codec.decode(codec.encode([array, array]))
    a[:] = 9
    assert b.tolist() == [0, 1, 2, 3, 4]


def test_plain_values_do_not_import_numpy() -> None:
    script = (
        "import sys; from mpflow._wire.codec import Codec; c = Codec(trust=True); c.decode(c.encode([1, (2,), {3}]));"
        "assert not {'numpy', 'pandas', 'pyarrow', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# -- pandas and Arrow --------------------------------------------------------------------------------------------------


def _series() -> list[Any]:
    pd = pytest.importorskip("pandas")
    return [
        pd.Series([1, 2], name="n"), pd.Series([1.5, None]), pd.Series(["a", None]), pd.Series([1, None], dtype="Int64"),
        pd.Series([1.5, None], dtype="Float32"), pd.Series([True, None], dtype="boolean"),
        pd.Series([1, "a", None, (2,)], dtype=object), pd.Series(["a", None], dtype="string"),
        pd.Series(["a", None], dtype=pd.StringDtype("python")), pd.Series(pd.Categorical(["b", "a", None], ordered=True)),
        pd.Series(pd.date_range("2020", periods=3, tz="Europe/Paris")), pd.Series(pd.date_range("2020", periods=2)),
        pd.Series(pd.period_range("2020", periods=2, freq="M")), pd.Series(pd.timedelta_range("1D", periods=2)),
        pd.Series(pd.arrays.SparseArray([0, 1, 0])), pd.Series(pd.arrays.IntervalArray.from_breaks([1, 2, 3])),
        pd.Series([1, 2], index=["x", "y"]), pd.Series([], dtype="f4"), pd.Series([bytearray(b"x")], dtype=object),
    ]  # fmt: skip


def test_series_of_every_kind_comes_back_as_data(codec: Codec) -> None:
    pd = pytest.importorskip("pandas")
    for series in _series():
        series.attrs["unit"] = "m"
        data, flags = codec.encode_flagged([series])
        (back,) = codec.decode(data)
        pd.testing.assert_series_equal(back, series)
        assert back.attrs == {"unit": "m"}
        assert is_portable(flags), series.dtype


def test_frames_and_indexes_come_back_as_data(codec: Codec) -> None:
    pd = pytest.importorskip("pandas")
    frames = [
        pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [1.5, 2]}), pd.DataFrame(np.zeros((3, 4), order="F")),
        pd.DataFrame(), pd.DataFrame([[1, "a"]], columns=["z", "z"]), pd.DataFrame({"a": []}),
        pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, "x")], names=["p", None])),
        pd.DataFrame({1: [1, 2], (2, "b"): [3, 4]}, index=pd.date_range("2020", periods=2, freq="D", name="day")),
    ]  # fmt: skip
    for frame in frames:
        data, flags = codec.encode_flagged(frame)
        back = codec.decode(data)
        pd.testing.assert_frame_equal(back, frame)
        assert is_portable(flags)
        if len(back.columns) and len(back):
            back.iloc[0, 0] = back.iloc[-1, 0]  # writable
        index = codec.decode(codec.encode(frame.index))
        pd.testing.assert_index_equal(index, frame.index)
    for scalar in (pd.Timestamp("2020"), pd.Timestamp("2020", tz="UTC"), pd.Timedelta("1D"), pd.NaT, pd.NA):
        back = codec.decode(codec.encode(scalar))
        assert type(back) is type(scalar) and repr(back) == repr(scalar)


def test_subclass_of_a_frame_is_not_flattened() -> None:
    pd = pytest.importorskip("pandas")

    class Frame(pd.DataFrame):  # type: ignore[misc]
        pass

    with pytest.raises(EncodeError):
        Codec().encode(Frame({"a": [1]}))


def test_arrow_values_come_back_as_data(codec: Codec) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, None], "b": ["x", None], "c": [[1], [2, 3]]}).replace_schema_metadata({"k": "v"})
    values = [
        table, table.slice(1), table.to_batches()[0], pa.array([1, None]), pa.chunked_array([[1], [2]]), table.schema.empty_table(),
        pa.array(["a", "b", "a"]).dictionary_encode(), pa.array([{"x": 1}]), pa.chunked_array([], pa.int8()),
    ]  # fmt: skip
    for value in values:
        data, flags = codec.encode_flagged(value)
        back = codec.decode(data)
        assert type(back) is type(value) and back.equals(value)
        assert is_portable(flags)
    assert codec.decode(codec.encode(table)).schema.metadata == {b"k": b"v"}
