"""MLflow's REST protocol: one module a noun, each a thin translation to `tracking` and `governance`."""

__all__: list[str] = []
