"""How a gated narrator writes: the choice of tokens, what is kept between steps, the decoder, and scores of texts."""
