"""The report says of weights that learned from labels that they know novel classes by name."""

from __future__ import annotations

import pytest
from synthetic_run import artifact

from gcdis_ray.report.view import RunView
from gcdis_ray.stages import embed


@pytest.mark.parametrize(
    ("known", "begins"),
    [
        (True, "The embeddings come from weights that were trained with class labels (some_net)"),
        ("unknown", "Nothing says whether the weights of the embeddings (some_net)"),
        (False, None),
    ],
)
def test_what_the_weights_may_know(known: object, begins: str | None) -> None:
    spec = {"backbone": "some_net", "trained_with_labels": known}
    made = artifact("embed", {}, {"embed_spec": spec})
    (section,) = embed.sections(RunView("run", "gcdis", 0, {}, "", [], {"embed": made}))
    assert len(section.sentences) == (begins is not None)
    if begins is not None:
        (sentence,) = section.sentences
        assert sentence.startswith(begins)
        assert 'know many "novel" classes by name' in sentence
