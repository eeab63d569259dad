"""What the roles measure of themselves: one list of names, sources of values, and a port that tells them."""

from facerelay.metrics.base import Meters, Metric, Reading, Source, Spread

__all__ = ["Meters", "Metric", "Reading", "Source", "Spread"]
