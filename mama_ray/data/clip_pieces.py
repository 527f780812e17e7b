"""CLIP's pieces: the pipeline around a vocabulary with its merges, and the order of their ids."""

from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

START, END, END_OF_WORD = "<|startoftext|>", "<|endoftext|>", "</w>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MIN_VOCAB_SIZE = 2 * 256 + 2  # every byte inside and at the end of a word, and the two special tokens


def build_clip_backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Backend:
    """The pipeline of transformers' CLIPTokenizer around a vocabulary and its merges."""
    model = BPE(
        vocab=vocab,
        merges=merges,
        continuing_subword_prefix="",
        end_of_word_suffix=END_OF_WORD,
        fuse_unk=False,
        unk_token=END,
    )
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    if START in vocab and END in vocab:
        backend.add_special_tokens([START, END])
        backend.post_processor = processors.RobertaProcessing(
            (END, vocab[END]), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
        )
    return backend


def in_clip_order(merges: list[tuple[str, str]], vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary with CLIP's ids for as many of these merges as fit, and those merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    kept = merges[: vocab_size - MIN_VOCAB_SIZE]
    tokens = [*alphabet, *(byte + END_OF_WORD for byte in alphabet), *(left + right for left, right in kept)]
    # Two merges may spell the same token, which keeps one id.
    return {token: number for number, token in enumerate(dict.fromkeys([*tokens, START, END]))}, kept
