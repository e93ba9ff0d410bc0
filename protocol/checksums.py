"""The checksums of pieces that have come, or have gone once, for whoever else gets them.

Never keeps a payload. Only those of whole pieces are kept, each of which begins at a multiple of
the most that a piece carries; so a payload has no more of them than such pieces.
"""

from zlib import crc32


class Checksums:
    """See the module.

    Args:
        piece_bytes_max: most data of one piece.
    """

    def __init__(self, piece_bytes_max: int) -> None:
        self._piece_bytes_max = piece_bytes_max
        self._kept: dict[bytes, dict[int, int]] = {}

    def __len__(self) -> int:
        """Of how many payloads it has any."""
        return len(self._kept)

    def of(self, key: bytes, offset: int, data: bytes | memoryview) -> int:
        """Return the checksum of a piece."""
        checksum = self._kept.get(key, {}).get(offset) if self._is_whole(offset, data) else None
        if checksum is None:
            checksum = crc32(data)
            self.note(key, offset, data, checksum)
        return checksum

    def note(self, key: bytes, offset: int, data: bytes | memoryview, checksum: int) -> None:
        """Keep the checksum of a piece that has come."""
        if self._is_whole(offset, data):
            self._kept.setdefault(key, {})[offset] = checksum

    def drop(self, key: bytes) -> None:
        """Keep nothing of a payload."""
        self._kept.pop(key, None)

    def _is_whole(self, offset: int, data: bytes | memoryview) -> bool:
        return len(data) == self._piece_bytes_max and not offset % self._piece_bytes_max
