"""Signatures estimate how alike two texts are, and banding finds the pairs that are."""

import random

import pytest

from mpflow.demo.similarity import (
    BUCKET_NEIGHBOURS,
    FEWEST_FINGERPRINTS,
    SHINGLE,
    SLOTS,
    WINDOW,
    closest_pairs,
    fingerprints,
    signature,
    similarity,
)


def words(count: int, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    return [f"w{chance.randrange(10_000)}" for _ in range(count)]


def test_equal_texts_have_equal_signatures():
    assert signature(words(500)) == signature(words(500))


def test_unrelated_texts_agree_in_nothing():
    assert similarity(signature(words(500, 1)), signature(words(500, 2))) == 0.0


@pytest.mark.parametrize("text", [[], ["x"] * 3, ["x"] * 1_000, words(SHINGLE)])
def test_too_little_to_compare_has_no_signature(text):
    assert signature(text) is None


def test_a_sparse_signature_is_filled_and_still_compares():
    text = words(150)
    assert FEWEST_FINGERPRINTS <= len(fingerprints(text)) < SLOTS
    assert len(signature(text)) == SLOTS
    assert similarity(signature(text), signature(text[:-1])) > 0.5
    assert similarity(signature(text), signature(words(150, 1))) == 0.0


def test_any_long_enough_common_run_leaves_a_common_fingerprint():
    common = words(SHINGLE + WINDOW - 1, 7)
    for seed in range(20):
        one = words(100, seed) + common + words(100, seed + 100)
        other = words(57, seed + 200) + common + words(31, seed + 300)
        assert fingerprints(one) & fingerprints(other)


def test_the_estimate_is_near_the_true_similarity():
    errors = []
    for seed in range(30):
        text = words(3_000, seed)
        changed = text[:2_000] + words(1_000, seed + 1_000)
        one, other = fingerprints(text), fingerprints(changed)
        errors.append(similarity(signature(text), signature(changed)) - len(one & other) / len(one | other))
    # One estimate has a standard deviation of sqrt(s (1 - s) / SLOTS) = 0.06; the mean of thirty is far closer.
    assert abs(sum(errors) / len(errors)) < 0.04
    assert max(map(abs, errors)) < 0.25


def test_pairs_come_closest_first_then_by_name():
    text = words(2_000)
    signatures = {
        "far": signature(words(2_000, 9)),
        "c": signature(text),
        "a": signature(text),
        "near": signature(text[:1_800] + words(200, 5)),
        "b": signature(text),
    }
    pairs = closest_pairs(signatures)
    assert [pair[1:] for pair in pairs[:3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert {name for pair in pairs[3:] for name in pair[1:]} == {"a", "b", "c", "near"}
    assert pairs == closest_pairs(dict(reversed(signatures.items())))


def test_very_many_copies_make_no_more_pairs_than_neighbours():
    copies = {f"{n:04}": signature(words(200)) for n in range(500)}
    assert len(closest_pairs(copies)) <= 500 * BUCKET_NEIGHBOURS
