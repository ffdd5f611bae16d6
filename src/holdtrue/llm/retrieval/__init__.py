"""Retrieval: documents to chunks to an index that is a version."""
