"""Caption metrics: generated text against references, by the definitions that the field's tables were made with."""
