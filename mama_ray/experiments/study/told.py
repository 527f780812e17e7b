"""Generated captions of a narrator whose errors are known: what a cell mixes in where no model has to be run."""

from mama_ray.data.synthetic.config import CorpusConfig
from mama_ray.data.synthetic.facts import facts_of, stream_rng, topic_ranks
from mama_ray.data.synthetic.generate import clip_id_of
from mama_ray.data.synthetic.grammar import Statement, render_caption
from mama_ray.data.synthetic.spoil import attributes_of, falsify
from mama_ray.data.synthetic.vocabulary import TOPICS


def told_captions(corpus: CorpusConfig, wrong_rate: float, *, rare_alone: bool = False) -> dict[str, str]:
    """Return a caption of each training clip by its id: its facts in plain words, one of them false at `wrong_rate`.

    rare_alone: only of the clips of the rarer half of the topics. A clip whose caption is false at one rate is so at
    every higher one.
    """
    ranks, captions = topic_ranks(corpus.seed), {}
    for number in range(corpus.num_train):
        facts = facts_of(corpus, "train", number)
        if rare_alone and ranks[str(facts[0].shape)] <= len(TOPICS) // 2:
            continue
        rng = stream_rng(corpus.seed, "generated", "train", number)
        statement = Statement(facts)
        if rng.random() < wrong_rate:
            statement, _ = falsify(facts, rng, attributes_of(corpus))
        captions[clip_id_of(corpus, "train", number)] = render_caption(statement, rng, domain="source")
    return captions
