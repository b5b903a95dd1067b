"""theta as a flat vector and as a digest."""

import numpy as np
import pytest
import torch

from meta_service.params import add, flatten, is_finite, norm, scale, sha256, unflatten

THETA = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([7.0])}


def test_flattening_goes_by_the_order_of_the_names_and_back() -> None:
    vector = flatten(THETA)
    np.testing.assert_array_equal(vector, [7, 0, 1, 2, 3, 4, 5])
    back = unflatten(vector, THETA)
    assert list(back) == ["b", "a"]
    assert all(torch.equal(back[name], THETA[name]) for name in THETA)


def test_unflattening_takes_read_only_memory_without_sharing_it() -> None:
    vector = flatten(THETA)
    vector.flags.writeable = False
    unflatten(vector, THETA)["a"][0] = 1.0
    assert vector[0] == 7


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="7 entries was expected, 8 came"):
        unflatten(np.zeros(8, np.float32), THETA)


def test_arithmetic_is_entry_by_entry() -> None:
    assert torch.equal(add(THETA, THETA)["b"], scale(THETA, 2)["b"])


def test_the_norm_is_that_of_all_entries_together() -> None:
    assert norm(THETA) == pytest.approx(np.linalg.norm(flatten(THETA)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_entry_that_is_not_finite_is_enough(bad: float) -> None:
    assert is_finite(THETA)
    assert not is_finite(THETA | {"a": torch.tensor([bad])})


def test_the_digest_changes_with_a_bit_a_name_a_shape_or_a_type() -> None:
    others = [
        THETA | {"a": torch.nextafter(THETA["a"], torch.tensor(8.0))},
        {"b": THETA["b"], "c": THETA["a"]},
        THETA | {"b": THETA["b"].reshape(3, 2)},
        THETA | {"a": THETA["a"].double()},
    ]
    digests = {sha256(theta) for theta in [THETA, *others]}
    assert len(digests) == 5
    assert sha256(dict(reversed(THETA.items()))) == sha256(THETA)
