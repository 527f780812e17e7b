"""What may be asked of a search."""

import pytest
from pydantic import ValidationError

from mama_ray.orchestration.serving.searching import SearchRequest


@pytest.mark.parametrize("name", ["plus", "minus", "like", "unlike"])
def test_words_and_names_of_any_length_are_refused_for_they_are_kept(name):
    assert getattr(SearchRequest(**{name: ["a" * 200]}), name) == ["a" * 200]
    with pytest.raises(ValidationError, match="at most"):
        SearchRequest(**{name: ["a", "a" * 2_001]})
