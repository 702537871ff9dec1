"""What the weights of the frozen embeddings may know before discovery begins."""

from __future__ import annotations

from gcdis_ray.report.section import Section
from gcdis_ray.report.view import RunView, printable


def embedding_section(view: RunView) -> Section:
    """A sentence for the summary where weights were, or may have been, trained with labels."""
    spec = view.json("embed_spec") or {}
    known, name = spec.get("trained_with_labels", False), printable(spec.get("backbone", ""))
    sentences = []
    if known is True:
        sentences.append(
            f"The embeddings come from weights that were trained with class labels ({name}): they "
            'know many "novel" classes by name, and the accuracies owe something to that.'
        )
    elif known is not False:
        sentences.append(
            f"Nothing says whether the weights of the embeddings ({name}) were trained with class "
            'labels. If so, they know many "novel" classes by name, and the accuracies owe '
            "something to that."
        )
    return Section("embedding", "Embedding", sentences=sentences)
