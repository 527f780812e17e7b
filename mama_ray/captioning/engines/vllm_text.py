"""The engine that is vLLM with an instruct model: captions in, candidates of other words out, no picture.

A call hands in the captions of a chunk together and waits for all of them; vLLM batches them. It runs in this very
process, so that an engine's death is the process's.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mama_ray.captioning.engines.generation import EngineConfig
from mama_ray.captioning.engines.protocol import GeneratedText
from mama_ray.captioning.engines.vllm_setup import load_vllm, prepare_vllm
from mama_ray.captioning.rephrasing.model_folder import instruct_length
from mama_ray.captioning.rephrasing.prompting import PlainWords, chat_token_ids, too_long
from mama_ray.captioning.rephrasing.settings import DecodingConfig


class VllmTextEngine:
    """A `RephrasingEngine` (rephrasing/engine.py).

    Args:
        folder: of a causal language model with a chat template, in Hugging Face's layout.
        prompt: what the template is given, with the mark of the caption in it.
        decoding: how candidates are sampled.
        config: of vLLM; without `max_model_len` at most 2,048 tokens.
        use_gpu: told by vLLM's own platform.

    Raises whatever vLLM raises when it cannot load the model.
    """

    def __init__(
        self, folder: Path, prompt: str, decoding: DecodingConfig, config: EngineConfig, *, use_gpu: bool = False
    ) -> None:
        self._prompt, self._decoding = prompt, decoding
        self._llm = _build(folder, config)
        self._tokenizer = self._llm.get_tokenizer()
        self._plain = PlainWords(self._tokenizer)
        self._one_at_a_time = threading.Lock()
        self.busy_s = self.idle_s = 0.0
        self.num_tokens = self._num_requests = 0
        self.last_step_s = time.monotonic()
        self._free_since_s = time.perf_counter()

    def rephrase(self, texts: Sequence[str], seeds: Sequence[int]) -> list[list[GeneratedText] | str]:
        """Return candidates of each text, or the reason why there are none."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        self.last_step_s = time.monotonic()
        limit = self._llm.llm_engine.model_config.max_model_len - self._decoding.max_length
        answers: list[list[GeneratedText] | str] = [[]] * len(texts)
        places, prompts, params = [], [], []
        for place, (text, seed) in enumerate(zip(texts, seeds, strict=True)):
            token_ids = self._token_ids(text)
            if len(token_ids) > limit:
                answers[place] = too_long(len(token_ids), limit)
                continue
            places.append(place)
            prompts.append(TokensPrompt(prompt_token_ids=token_ids))
            params.append(SamplingParams(**self._sampling, seed=seed, output_kind=RequestOutputKind.FINAL_ONLY))
        with self._one_at_a_time:
            began = time.perf_counter()
            self.idle_s += began - self._free_since_s
            for place, output in zip(places, self._generate(prompts, params), strict=True):
                answers[place] = [_told(one) for one in output.outputs]
                self.num_tokens += sum(len(one.token_ids) for one in output.outputs)
            self._free_since_s = time.perf_counter()
            self.busy_s += self._free_since_s - began
        return answers

    def _generate(self, prompts: list, params: list) -> list:
        """Return vLLM's outputs in the order of the prompts, step by step, so that an engine which hangs is noticed."""
        engine, names = self._llm.llm_engine, []
        for prompt, own in zip(prompts, params, strict=True):
            self._num_requests += 1
            names.append(str(self._num_requests))
            engine.add_request(names[-1], prompt, own)
        finished = {}
        while engine.has_unfinished_requests():
            finished.update({output.request_id: output for output in engine.step() if output.finished})
            self.last_step_s = time.monotonic()
        return [finished[name] for name in names]

    @property
    def _sampling(self) -> dict[str, Any]:
        decoding = self._decoding
        return {
            "n": decoding.num_samples,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": decoding.top_k,
            "max_tokens": decoding.max_length,
            "logprobs": 0,  # that of the written token alone
        }

    def _token_ids(self, text: str) -> list[int]:
        return chat_token_ids(self._tokenizer, self._prompt, self._plain(text))


def _told(completion: Any) -> GeneratedText:
    num_tokens = len(completion.token_ids)
    logprob = completion.cumulative_logprob if num_tokens else None
    mean = float("nan") if logprob is None else logprob / num_tokens
    return GeneratedText(completion.text, num_tokens, str(completion.finish_reason), mean)


def _build(folder: Path, config: EngineConfig) -> Any:
    from transformers import AutoConfig

    prepare_vllm(config)
    described = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    own_length = getattr(described, "max_position_embeddings", None)
    return load_vllm(folder, config, {"max_model_len": instruct_length(own_length, config.max_model_len)})
