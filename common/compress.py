"""lz4 for the arrays of a record, where a sample says that it pays. Used by carriers whose bytes travel (kafka://).

Each array is a block of its own, so that what is not compressed stays a view of the record. Floats often look random:
those are neither compressed nor copied.
"""

from __future__ import annotations

import lz4.block

from headrace.common.errors import Rejected

#: Smaller arrays cost more to handle than they can save.
MIN_BYTES = 1024
SAMPLES, SAMPLE_BYTES = 8, 4096
#: Size after, relative to before, from which on an array travels as it is.
PAYS_BELOW = 0.9
#: No lz4 block holds more than this many times its own size, so that a header which says so lies.
MAX_RATIO = 255


def pack(raw: memoryview) -> bytes | None:
    """``raw`` as an lz4 block; None where that does not pay."""
    if len(raw) < MIN_BYTES or not _worth(raw):
        return None
    packed: bytes = lz4.block.compress(raw, store_size=False)
    return packed if len(packed) < PAYS_BELOW * len(raw) else None


def unpack(packed: memoryview, nbytes: int) -> bytes:
    """The ``nbytes`` in a block; allocates no more than those. The caller has checked them against its cap.

    Raises :class:`Rejected` when the block holds fewer, more, or nonsense."""
    if nbytes > MAX_RATIO * len(packed):
        raise Rejected("malformed", f"{nbytes} bytes cannot be in an lz4 block of {len(packed)}")
    try:
        raw: bytes = lz4.block.decompress(packed, uncompressed_size=nbytes)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError) as e:
        raise Rejected("malformed", f"no lz4 block of {nbytes} bytes: {e}") from e
    if len(raw) != nbytes:
        raise Rejected("malformed", f"an lz4 block held {len(raw)} bytes, {nbytes} were announced")
    return raw


def _worth(raw: memoryview) -> bool:
    step = max(SAMPLE_BYTES, len(raw) // SAMPLES)
    sample = b"".join(raw[i : i + SAMPLE_BYTES] for i in range(0, len(raw), step))
    return len(lz4.block.compress(sample, store_size=False)) < PAYS_BELOW * len(sample)
