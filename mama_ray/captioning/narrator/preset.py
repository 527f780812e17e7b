"""The small narrator that is trained from scratch: a LLaVA-1.5 in all but size, with a tokenizer of its own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from mama_ray.data.byte_level_bpe import train_byte_level_bpe

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

SIDE = 192  # 4 x 3 cells of the embedded corpus's 48 pixels, with 24 above and below
_PATCH = 16  # a third of a cell
_VISION_WIDTH = 128
_TEXT_WIDTH = 96
_HEAD = 32  # the smallest that vLLM's attention takes on a CPU
_START, _END, _PADDING, _IMAGE = "<s>", "</s>", "<pad>", "<image>"
# LLaVA-1.5's own words.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] in ('image', 'image_url') %}<image>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_MAX_POSITIONS = 512
# CLIP starts its position embeddings at 0.02, lost beside patches of size 1; a tower that learns from scratch must
# tell cells apart before it can see motion.
_POSITION_STD = 0.5


def build_tiny_processor(captions: Iterable[str], prompt_text: str, *, vocab_size: int) -> "LlavaProcessor":
    """Train a byte-level BPE on the captions and the prompt; no text is ever unknown to it."""
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    # Captions follow `ASSISTANT:`, so their first word has a space before it too.
    texts = [f" {caption}" for caption in captions] + [f"USER: {prompt_text} ASSISTANT:"]
    backend = train_byte_level_bpe(texts, [_START, _END, _PADDING, _IMAGE], vocab_size=vocab_size)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=_START,
        eos_token=_END,
        pad_token=_PADDING,
        additional_special_tokens=[_IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=_MAX_POSITIONS,
    )
    # The PIL processor needs no torchvision.
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the class token, which "default" drops again
        image_token=_IMAGE,
        chat_template=CHAT_TEMPLATE,
    )


def build_tiny_model(processor: "LlavaProcessor") -> "LlavaForConditionalGeneration":
    """Make the untrained model for a tiny processor, from torch's current random state."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = processor.tokenizer
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    vision = CLIPVisionConfig(
        hidden_size=_VISION_WIDTH,
        intermediate_size=4 * _VISION_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=_VISION_WIDTH // _HEAD,
        hidden_act="gelu",
        image_size=SIDE,
        patch_size=_PATCH,
        projection_dim=_VISION_WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=_TEXT_WIDTH,
        intermediate_size=2 * _TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=_TEXT_WIDTH // _HEAD,
        num_key_value_heads=_TEXT_WIDTH // _HEAD,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=False,
        initializer_range=_TEXT_WIDTH**-0.5,  # Llama's own 0.02 is for widths of thousands
        **special,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=processor.image_token_id,
            # LLaVA-1.5 takes the layer before it, as the last of a trained CLIP serves CLIP alone.
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            projector_hidden_act="gelu",
            tie_word_embeddings=False,
        )
    )
    for name, parameter in model.named_parameters():
        if "position_embedding" in name:
            nn.init.normal_(parameter, std=_POSITION_STD)
    for name, token_id in special.items():
        setattr(model.generation_config, name, token_id)
    return model
