"""Scatter-Gather: the same question to many shards, and an answer that says which of them it comes from."""

from faultproof.patterns.scatter_gather.gathered import Answer, Gathered, Incomplete, Missing
from faultproof.patterns.scatter_gather.policy import GatherPolicy
from faultproof.patterns.scatter_gather.scatter import ScatterGather

__all__ = ["Answer", "GatherPolicy", "Gathered", "Incomplete", "Missing", "ScatterGather"]
