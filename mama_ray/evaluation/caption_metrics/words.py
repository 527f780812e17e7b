"""The words that caption metrics count, and their runs (n-grams).

LaViLa's narrator protocol sends both sides through `bert-base-uncased` and back: lower case, no accents, punctuation as
words of its own. What needs no vocabulary is done here by the same rules. The one thing that is left out is that BERT's
vocabulary drops letters it does not know.
"""

from collections import Counter
from collections.abc import Sequence

from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

TOKENISATION = "lower case, no accents, punctuation apart (as bert-base-uncased)"
Ngram = tuple[str, ...]

_NORMALIZER = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True)
_PRE_TOKENIZER = BertPreTokenizer()


def caption_words(text: str) -> list[str]:
    """Return a caption's words in order, punctuation among them; of an empty caption none."""
    return [word for word, _ in _PRE_TOKENIZER.pre_tokenize_str(_NORMALIZER.normalize_str(text))]


def count_ngrams(words: Sequence[str], n: int) -> Counter[Ngram]:
    """Count the runs of n neighbouring words."""
    return Counter(tuple(words[start : start + n]) for start in range(len(words) - n + 1))
