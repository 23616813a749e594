"""The hash of an object's content, and the fingerprint that comes before it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskps.objects.content import content_hash, fingerprint

MIB = 1 << 20
LARGE = np.random.default_rng(0).bytes(40 * MIB + 12345)


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_does_not_depend_on_how_the_bytes_are_divided(frames):
    assert content_hash(frames) == content_hash([b"".join(frames)])


# XXH3 reads 240 bytes at most in other ways, what comes piece by piece in 256, and mixes
# every 1024.
@pytest.mark.parametrize("nbytes", [0, 1, 240, 241, 255, 256, 257, 1023, 1024, MIB])
def test_sizes_at_which_the_hash_works_otherwise(nbytes):
    data = LARGE[:nbytes]
    digest = content_hash([data])
    assert digest == content_hash([data[: nbytes // 3], data[nbytes // 3 :]])
    assert digest != content_hash([data, b"\0"])


@pytest.mark.parametrize("before", [0, 1, MIB - 1, 4 * MIB + 5])
def test_large_data_in_pieces(before):
    pieces = [LARGE[start : start + MIB] for start in range(0, len(LARGE), MIB)]
    assert content_hash([LARGE[:before], LARGE[before:]]) == content_hash(pieces)


@given(st.integers(0, len(LARGE) - 1))
def test_depends_on_every_byte(place):
    data = bytearray(LARGE[: 4 * MIB + 100])
    place %= len(data)
    data[place] ^= 1
    assert content_hash([data]) != content_hash([LARGE[: 4 * MIB + 100]])


@pytest.mark.parametrize("select", [np.s_[::2], np.s_[:, ::-1], np.s_[3:90, 5:70]])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "c16", "M8[ns]", "S3"])
def test_a_strided_array_is_its_bytes_in_c_order(select, dtype):
    array = np.arange(90_000).reshape(300, 300).astype("f4").view("u1")
    array = np.tile(array, 3).view(dtype)[select]
    data = array.tobytes()
    assert content_hash([array]) == content_hash([data])
    assert fingerprint([array]) == fingerprint([data])


@given(st.binary(max_size=300), st.integers(0, 299))
def test_small_things_have_a_fingerprint_of_all_their_bytes(data, place):
    changed = bytearray(data)
    if place < len(data):
        changed[place] ^= 1
        assert fingerprint([changed]) != fingerprint([data])
    assert fingerprint([bytes(data)]) == fingerprint([memoryview(data)])


def test_other_data_has_another_fingerprint():
    rng = np.random.default_rng(1)
    arrays = [rng.random(100_000) for _ in range(50)]
    assert len({fingerprint([a.data]) for a in arrays}) == 50
    assert fingerprint([arrays[0].data]) != fingerprint([arrays[0][:-1].data])


@pytest.mark.parametrize("n", [1, 3, 63, 64, 100, 128, 256, 1000])
def test_packed_values_have_another_fingerprint(n):
    """Their frames are in turn padding and values."""
    rng = np.random.default_rng(n)
    packs = [[f for _ in range(n) for f in (bytes(24), rng.bytes(1000))] for _ in "ab"]
    assert fingerprint(packs[0]) != fingerprint(packs[1])
    assert fingerprint(packs[0]) == fingerprint([bytes(f) for f in packs[0]])
