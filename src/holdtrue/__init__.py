"""Models that hold true in production."""
