import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from meta_service.data.pickled import load_arrays
from meta_service.errors import UserError

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
CONTENT = {"image_data": ARRAY, "class_dict": {"n01": [0, 1, 2], "n02": [3, 4, 5]}}


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_whatever_the_protocol(tmp_path, protocol):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(CONTENT, protocol))
    read = load_arrays(tmp_path / "a.pkl")
    np.testing.assert_array_equal(read["image_data"], ARRAY)
    assert read["image_data"].dtype == np.uint8
    assert read["class_dict"] == CONTENT["class_dict"]


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(3, dtype=">i4"), np.array(7)],
)
def test_orders_and_shapes_of_arrays_are_kept(tmp_path, protocol, array):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([array], protocol))
    np.testing.assert_array_equal(load_arrays(tmp_path / "a.pkl")[0], array)


def test_numpy_numbers_and_ordered_dictionaries_are_read(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(OrderedDict(n01=[np.int64(5), np.int32(6)])))
    assert load_arrays(tmp_path / "a.pkl") == {"n01": [5, 6]}


def test_an_array_written_by_python_2_is_read(tmp_path):
    # as Python 2 wrote it: the bytes as text (U, short string), numpy.core, protocol 2
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"\x80\x02}U\x0aimage_data" + reconstruct + b"(K\x01K\x03\x85" + dtype + b"\x89U\x03\x00\xc8\xfftbs."
    (tmp_path / "a.pkl").write_bytes(content)
    assert load_arrays(tmp_path / "a.pkl")["image_data"].tolist() == [0, 200, 255]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_hostile_pickle_is_refused_and_nothing_of_it_runs(tmp_path, protocol):
    trace = tmp_path / "trace"
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"image_data": Call(os.mkdir, str(trace))}, protocol))
    with pytest.raises(UserError, match=r"would run (posix|nt|os)\.mkdir") as error:
        load_arrays(tmp_path / "a.pkl")
    assert "\n" not in str(error.value)
    assert not trace.exists()
    pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert trace.exists()  # it is hostile indeed


@pytest.mark.parametrize("function", [eval, exec, getattr, np.load, np.fromfile, os.system, pickle.loads, type, open])
def test_no_function_beyond_those_of_arrays_is_admitted(tmp_path, function):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Call(function, "1")))
    with pytest.raises(UserError, match="is refused: it would run"):
        load_arrays(tmp_path / "a.pkl")


def test_an_attribute_of_an_admitted_name_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.")
    with pytest.raises(UserError, match=r"would run numpy\.ndarray\.__init__"):
        load_arrays(tmp_path / "a.pkl")


def test_an_array_of_objects_is_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(np.array([{}, []], object)))
    with pytest.raises(UserError, match="an array of type 'O8'"):
        load_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.99])
def test_a_truncated_pickle_is_an_error_that_names_it(tmp_path, share):
    whole = pickle.dumps(CONTENT)
    (tmp_path / "a.pkl").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.pkl is not a readable pickle"):
        load_arrays(tmp_path / "a.pkl")


def test_an_array_that_announces_more_than_it_holds_is_refused(tmp_path):
    whole = pickle.dumps(np.zeros(200, np.uint8), 2)
    announced = whole.replace(b"K\xc8\x85", b"J\xff\xff\xff\x7f\x85")
    assert announced != whole
    (tmp_path / "a.pkl").write_bytes(announced)
    with pytest.raises(UserError, match="cannot reshape"):
        load_arrays(tmp_path / "a.pkl")


def test_bytes_that_announce_exabytes_are_refused(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"x.")
    with pytest.raises(UserError, match="not a readable pickle"):
        load_arrays(tmp_path / "a.pkl")
