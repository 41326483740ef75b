"""Answers of the sides of one model by transformers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from tunesmith_contract.evaluation import Decoding, Engine
from tunesmith_evaluation.items.requests import Reply
from tunesmith_evaluation.metrics.answers import Answer

from .encoding import EncodedRequest
from .generation import Generated
from .group_answerer import GroupAnswerer
from .model_processes import ModelProcesses
from .placement import choose_placements, gpu_sizes, measure_model
from .replies import build_reply
from .side_models import GenerationTask, LikelihoodTask, SideModels


class TransformersAnswerer(GroupAnswerer):
    """Answerer of the sides of one model, which is loaded once for all their suites.

    Args:
        group: the model and its adapters.
        gpus: number of GPUs of the pod.
    """

    engine = Engine.TRANSFORMERS

    def _answer_encoded(self, encoded: Sequence[EncodedRequest]) -> Iterator[Sequence[Reply]]:
        with self._open_models(encoded) as models:
            for _, some in groupby(sorted(encoded, key=self._order), key=self._order):
                yield from self._answer_group(models, list(some))

    def _order(self, encoded: EncodedRequest) -> tuple[int, str, str, bool, bool]:
        """Order in which adapters change rarely, and prompts that begin alike come together."""
        request = encoded.request
        return (
            self.sides.index(request.side),
            request.suite,
            request.decoding.to_json(),
            request.generates,
            request.expected is not None,
        )

    def _answer_group(
        self, models: SideModels | ModelProcesses, encoded: Sequence[EncodedRequest]
    ) -> Iterator[Sequence[Reply]]:
        """Replies to requests of one side and suite that ask for the same."""
        first = encoded[0].request
        likelihoods: dict[int, Any] = {}
        measured = [index for index, one in enumerate(encoded) if one.expected is not None]
        if measured:
            task = LikelihoodTask(first.side, [one.expected for one in encoded if one.expected is not None])
            for results in models.run(task):
                likelihoods |= {measured[index]: likelihood for index, likelihood in results.items()}
        if not first.generates:
            yield [
                Reply(
                    one.request,
                    Answer("", likelihood=likelihoods.get(index)),
                    prompt_tokens=one.prompt_tokens,
                )
                for index, one in enumerate(encoded)
            ]
            return
        prompts = [one.prompt for one in encoded if one.prompt is not None]
        for results in models.run(GenerationTask(first.side, prompts, first.decoding)):
            yield [
                build_reply(self._tokenizer, encoded[index], generated, likelihoods.get(index))
                for index, generated in results.items()
                if isinstance(generated, Generated)
            ]

    @contextmanager
    def _open_models(self, encoded: Sequence[EncodedRequest]) -> Iterator[SideModels | ModelProcesses]:
        """Models that answer, in this process or in one process per placement.

        Raises:
            StageError: the model does not fit on the GPUs.
        """
        memory = measure_model(self._group.folder)
        longest = max(_length(one) for one in encoded)
        placements = choose_placements(memory, longest, gpu_sizes(self._gpus))
        # No process without work, where the largest task has fewer requests than there are GPUs.
        placements = placements[: max(Counter(map(self._order, encoded)).values())]
        if len(placements) == 1:
            models = SideModels(self._group, memory, placements[0])
            try:
                yield models
            finally:
                models.unload()
            return
        with ModelProcesses(self._group, memory, placements) as processes:
            yield processes


def _length(encoded: EncodedRequest) -> int:
    """Tokens of the prompt with the longest answer."""
    decoding: Decoding = encoded.request.decoding
    generated = len(encoded.prompt.ids) + decoding.max_new_tokens if encoded.prompt else 0
    return max(generated, len(encoded.expected.ids) if encoded.expected else 0)
