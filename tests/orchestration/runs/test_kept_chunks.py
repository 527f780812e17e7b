"""What validation keeps decoded is bounded, and what does not fit is decoded again."""

from mama_ray.orchestration.runs.kept_chunks import KeptChunks


def test_chunks_are_decoded_once_as_long_as_they_fit():
    decoded: list[int] = []

    def decode(number: int) -> bytes:
        decoded.append(number)
        return bytes(4 if number != 1 else 7)

    chunks = KeptChunks(decode, len, max_bytes=10)
    for _ in range(2):
        assert [len(chunks[number]) for number in range(4)] == [4, 7, 4, 4]
    assert decoded == [0, 1, 2, 3, 1, 3]  # 0 and 2 were kept: with either of the others it would be more than 10
