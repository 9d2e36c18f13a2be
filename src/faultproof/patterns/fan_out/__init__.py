"""Fan-out: one request to several services at once, and one answer that says which of them are in it."""

from faultproof.patterns.fan_out.fan_out import FanOut, Source

__all__ = ["FanOut", "Source"]
