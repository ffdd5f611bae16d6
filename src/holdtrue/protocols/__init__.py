"""Wire protocols: one module each, a thin translation to the rooms below, imported by its name."""

__all__: list[str] = []
