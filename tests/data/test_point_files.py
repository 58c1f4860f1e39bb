"""A user's own numbers: round trips, and a sentence for each thing that can be wrong."""

import io
import os
import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from alphabar.data import load, points

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TABLES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1).map(
    lambda shape: (shape[0] + 1, shape[1])), elements=FINITE)  # fmt: skip
NAMES = st.lists(
    st.text("abcxyzé한글 ,\"'", min_size=1, max_size=5).map(lambda name: "n" + name.strip()),
    min_size=10,
    max_size=10,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@settings(max_examples=60, deadline=None)
@given(x=TABLES, names=NAMES, header=st.booleans(), tabs=st.booleans(), bom=st.booleans())
def test_text_round_trip(folder, x, names, header, tabs, bom):
    import csv

    names = [name for name in names if name not in ("nan",)][: x.shape[1]]
    header = header and len(names) == x.shape[1]
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t" if tabs else ",")
    writer.writerows([names] * header + [[repr(float(v)) for v in row] for row in x])
    path = folder / ("a.tsv" if tabs else "a.csv")
    data = load(write(path, buffer.getvalue().encode("utf-8-sig" if bom else "utf-8")))
    assert (data.x.numpy() == x).all()
    assert len(data.columns) == x.shape[1]
    assert not header or data.columns == tuple(names)


@settings(max_examples=60, deadline=None)
@given(x=TABLES, key=st.sampled_from(["x", "other"]))
def test_binary_round_trip(folder, x, key):
    np.save(folder / "a.npy", x)
    np.savez(folder / "a.npz", **{key: x})
    for name in ("a.npy", "a.npz"):
        data = load(str(folder / name))
        assert (data.x.numpy() == x).all()
        again = load(data.spec)
        assert again.spec == data.spec == f"file:{folder / name}"
        assert torch.equal(again.x, data.x)


@pytest.mark.parametrize("dtype", ["?", "u1", "<i4", ">i8", "<f2", ">f4", "g"])
def test_any_real_numbers_become_float64(tmp_path, dtype):
    x = np.array([[0, 1], [1, 1], [1, 0]], dtype)
    np.save(tmp_path / "a.npy", x)
    data = load(str(tmp_path / "a.npy"))
    assert data.x.dtype == torch.float64
    assert data.x.tolist() == x.astype(float).tolist()


def test_one_axis_is_one_column(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(4))
    data = load(str(tmp_path / "a.npy"))
    assert data.x.shape == (4, 1)
    assert data.columns == ("x",)


@pytest.mark.parametrize(
    ("d", "columns"), [(2, ("x", "y")), (3, ("x", "y", "z")), (4, ("x1", "x2", "x3", "x4"))]
)
def test_columns_without_names(d, columns):
    assert points(np.zeros((2, d))).columns == columns


def test_points_of_a_tensor_are_a_copy():
    x = torch.rand(5, 2)
    data = points(x, ["a", "b"])
    assert data.columns == ("a", "b")
    assert torch.equal(data.x, x.double())
    data.x[0] = 9
    assert x.max() <= 1


def test_hue_is_the_rank_of_the_first_column():
    assert points(np.array([[5.0, 0], [-1, 0], [7, 0]])).hue.tolist() == [0.5, 0, 1]


def test_npz_by_key(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, x=np.zeros((2, 1)), y=np.ones((3, 2)))
    assert len(load(path)) == 2
    data = load(f"file:{path},key=y")
    assert len(data) == 3
    assert load(data.spec).spec == data.spec == f"file:{path},key=y"


@pytest.mark.parametrize(
    ("text", "columns", "x"),
    [
        ("a,b\n1,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
        ("\n \na,b\r\n1,2\r\n\r\n3,4", ("a", "b"), [[1, 2], [3, 4]]),
        ("# u,v\n1,2\n3,4\n", ("u", "v"), [[1, 2], [3, 4]]),
        ('"a, b",\n"1", 2\n3 ,"4"\n', ("a, b", "column 2"), [[1, 2], [3, 4]]),
        ("1e3,-.5\n+2,0x\n".replace("0x", "0"), ("x", "y"), [[1e3, -0.5], [2, 0]]),
        ("이름,값\n1,2\n3,4\n", ("이름", "값"), [[1, 2], [3, 4]]),
        ("1\r2\r3", ("x",), [[1], [2], [3]]),
        ('"two\nlines",b\n1,2\n3,4\n', ("two\nlines", "b"), [[1, 2], [3, 4]]),
        ("a,b\n１,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
    ],
)
def test_text_files_of_all_sorts(tmp_path, text, columns, x):
    data = load(write(tmp_path / "a.csv", text))
    assert data.columns == columns
    assert data.x.tolist() == x


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv' is empty: it must hold data"),
        ("\n  \n\n", "a.csv' is blank"),
        ("\ufeff", "a.csv' is blank"),
        ("a,b\n", "has 0 rows and 2 columns: a data set needs at least two rows"),
        ("a,b\n1,2\n", "has 1 row and 2 columns"),
        ("1,2\n", "has 1 row and 2 columns"),
        ("a,b\n1,2\n3,cat\n", r"line 3, column 2 \(b\) is the text 'cat': every value must be"),
        ("1,2\n3,cat\n", r"line 2, column 2 is the text 'cat'"),
        ("\na,b\n1,2\n\n3,cat\n", r"line 5, column 2 \(b\) is the text 'cat'"),
        ("a,b\n1,\n3,4\n", r"line 2, column 2 \(b\) is empty"),
        ("a,b\n1,2\n3\n", "line 3: 1 value where the first line has 2: every line needs as many"),
        ("1,2\n3,4,5\n", "line 2: 3 values where the first line has 2"),
        ("a,b\n1,2,3\n4,5,6\n", "line 2: 3 values where the first line has 2"),
        ("a;b\n1;2\n", "line 2, column 1 .*is the text '1;2': .* with commas between"),
        ("1,b\n2,3\n", "line 1: column 1 is the number '1' and column 2 is 'b': a line holds"),
        ("1,2\nnan,3\n4,5\n", r"1 of 3 rows hold NaN or infinity \(lines 2\)"),
        ("a,b\n\n" + "1,2\n" + "inf,1\n" * 7, r"7 of 8 rows .*\(lines 4, 5, 6, 7, 8, …\)"),
        ("a\n" + "9" * 140_000 + "x\n", "line 2: field larger than field limit"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: byte 0xff is not UTF-8 text; save the file as UTF-8"),
        ("이름,값\n".encode("cp949"), "line 1: byte .* is not UTF-8"),
    ],
)
def test_text_files_that_are_wrong(tmp_path, text, message):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert path in str(refusal.value)


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz(**arrays_):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays_)
    return buffer.getvalue()


TWO = np.arange(4.0).reshape(2, 2)
BAD_FILES = {
    "empty.npy": (b"", "is empty"),
    "pickle.npy": (pickle.dumps(TWO), "cannot be read as a .npy file"),
    "object.npy": (npy(np.array([{}, 1], object)), "holds Python objects.*could run code"),
    "object.npz": (npz(x=np.array([{}, 1], object)), "holds Python objects.*could run code"),
    "cut.npy": (npy(np.zeros((50, 2)))[:300], "cannot be read as a .npy file, it may be cut off"),
    "cut.npz": (npz(x=np.zeros((50, 2)))[:300], "cannot be read as an .npz file"),
    "noise.npz": (b"PK\x03\x04" + b"?" * 200, "cannot be read as an .npz file"),
    "plain.npz": (npy(TWO), "it is not a zip archive"),
    "harm.npz": (
        npz(x=TWO).replace(TWO.tobytes(), TWO.tobytes()[::-1]),
        "cannot be read as an .np",
    ),
    "zip.npy": (npz(x=TWO), "cannot be read as a .npy file"),
    "none.npz": (npz(), r"has the arrays \[\]: save one as x"),
    "many.npz": (npz(a=TWO, b=TWO), r"arrays \['a', 'b'\]: choose one with file:.*,key=NAME"),
    "cube.npy": (npy(np.zeros((2, 2, 4, 5))), r"has shape \(2, 2, 4, 5\): pictures are"),
    "scalar.npy": (npy(np.float64(3)), r"has shape \(\)"),
    "complex.npy": (npy(TWO * 1j), "holds complex128 values: points must be real numbers"),
    "words.npy": (npy(np.array(["a", "b"])), "holds <U1 values"),
    "fields.npy": (npy(np.zeros(3, [("a", "f8"), ("b", "f8")])), "points must be real numbers"),
    "rows.npy": (npy(np.zeros((0, 2))), "has 0 rows and 2 columns"),
    "row.npy": (npy(np.zeros((1, 2))), "has 1 row and 2 columns"),
    "columns.npy": (npy(np.zeros((5, 0))), "has 5 rows and 0 columns"),
    "nan.npy": (npy(np.array([1, np.nan, 2, -np.inf])), r"2 of 4 rows .*counted from 0: 1, 3\)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_binary_files_that_are_wrong(tmp_path, name):
    content, message = BAD_FILES[name]
    path = write(tmp_path / name, content)
    with pytest.raises(ValueError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert path in str(refusal.value)


def test_a_header_that_claims_more_than_memory_is_refused(tmp_path):
    header = npy(TWO).replace(b"(2, 2), }" + b" " * 14, b"(99999999999999, 2), } ")
    assert b"99999999999999" in header
    with pytest.raises(ValueError, match=r"cannot be read as a .npy file"):
        load(write(tmp_path / "huge.npy", header))


def test_a_key_that_is_not_there_or_has_no_place(tmp_path):
    path = write(tmp_path / "a.npz", npz(a=TWO, b=TWO))
    with pytest.raises(ValueError, match=r"has the arrays \['a', 'b'\] and no 'c': choose one"):
        load(f"file:{path},key=c")
    with pytest.raises(ValueError, match=r"only an .npz has keys; leave key out"):
        load("file:a.csv,key=c")


@pytest.mark.parametrize("prefix", ["", "file:"])
def test_paths_that_are_no_files(tmp_path, prefix):
    for name, error, message in [
        ("none.csv", FileNotFoundError, "there is no such file; check its path"),
        (".", OSError if prefix else ValueError, "is a folder: name a file in it|no picture in it"),
        ("a" * 300 + ".csv", OSError, "cannot be read: File name too long"),
        ("nul\0.csv", ValueError, "cannot be a path"),
    ]:
        with pytest.raises(error, match=message) as refusal:
            load(f"{prefix}{tmp_path}/{name}")
        assert str(refusal.value).startswith("'")


def test_a_wrong_ending_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "1,2\n3,4\n")
    with pytest.raises(ValueError, match=r"a.txt': the name must end in one of .npy .npz .csv .ts"):
        load(path)
    with pytest.raises(ValueError, match=r"; for a picture write picture:a.png or image:a.png"):
        load("file:a.png")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    # Root may read anything, so the refusal is played.
    path = write(tmp_path / "a.csv", "1,2\n3,4\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError, match=r"a.csv' may not be read: allow it with chmod \+r"):
        load(path)


def test_a_data_set_wins_over_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "moons", "1,2\n3,4\n")
    write(tmp_path / "other", "1,2\n3,4\n")
    assert load("moons:n=5").spec.startswith("moons")
    assert load("moons").spec.startswith("moons")
    with pytest.raises(ValueError, match=re.escape("'other': the name must end in one of .npy")):
        load("other")


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.csv", "1,2\n3,4\n")
    data = load("~/a.csv")
    assert data.spec == "file:~/a.csv"
    assert len(load(data.spec)) == 2


def test_a_relative_path_with_odd_characters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a b.csv", "a,b=c.csv", 'q"uote.csv', "back\\slash.csv", "한글.csv", "n:1.CSV"):
        write(tmp_path / name, "1,2\n3,4\n")
        data = load(name)
        assert torch.equal(load(data.spec).x, data.x)
        assert os.path.exists(name)
