"""Retrieval: documents to chunks to an index that is a version.

Names are imported on first use: building needs the pipelines and parsers, and the data plane must not load them.
"""

from typing import TYPE_CHECKING

from holdtrue.core.lazy import attach

if TYPE_CHECKING:
    from holdtrue.llm.retrieval.building import build_index
    from holdtrue.llm.retrieval.comparing import diff_indexes, show_index
    from holdtrue.llm.retrieval.embedding import Embed, Embedder, embeddings_of, embeddings_request, open_embedder
    from holdtrue.llm.retrieval.evaluating import RetrievalCase, evaluate_retrieval, read_cases
    from holdtrue.llm.retrieval.model import (
        Built,
        Chunk,
        Chunking,
        Document,
        DocumentRefused,
        EmbedderFailed,
        EmbedderMismatch,
        EmbedderMissing,
        Hit,
        IndexRefused,
        IndexSpec,
        NoDocuments,
        Parsing,
        Progress,
        Reason,
        Skipped,
        Source,
        Weights,
    )
    from holdtrue.llm.retrieval.online import Index, open_index, query_text, render_passages
    from holdtrue.llm.retrieval.reading import find_sources, read_documents

__all__ = [
    "Built",
    "Chunk",
    "Chunking",
    "Document",
    "DocumentRefused",
    "Embed",
    "Embedder",
    "EmbedderFailed",
    "EmbedderMismatch",
    "EmbedderMissing",
    "Hit",
    "Index",
    "IndexRefused",
    "IndexSpec",
    "NoDocuments",
    "Parsing",
    "Progress",
    "Reason",
    "RetrievalCase",
    "Skipped",
    "Source",
    "Weights",
    "build_index",
    "diff_indexes",
    "embeddings_of",
    "embeddings_request",
    "evaluate_retrieval",
    "find_sources",
    "open_embedder",
    "open_index",
    "query_text",
    "read_cases",
    "read_documents",
    "render_passages",
    "show_index",
]

__getattr__ = attach(
    __name__,
    {
        "Built": "model",
        "Chunk": "model",
        "Chunking": "model",
        "Document": "model",
        "DocumentRefused": "model",
        "Embed": "embedding",
        "Embedder": "embedding",
        "EmbedderFailed": "model",
        "EmbedderMismatch": "model",
        "EmbedderMissing": "model",
        "Hit": "model",
        "Index": "online",
        "IndexRefused": "model",
        "IndexSpec": "model",
        "NoDocuments": "model",
        "Parsing": "model",
        "Progress": "model",
        "Reason": "model",
        "RetrievalCase": "evaluating",
        "Skipped": "model",
        "Source": "model",
        "Weights": "model",
        "build_index": "building",
        "diff_indexes": "comparing",
        "embeddings_of": "embedding",
        "embeddings_request": "embedding",
        "evaluate_retrieval": "evaluating",
        "find_sources": "reading",
        "open_embedder": "embedding",
        "open_index": "online",
        "query_text": "online",
        "read_cases": "evaluating",
        "read_documents": "reading",
        "render_passages": "online",
        "show_index": "comparing",
    },
)
