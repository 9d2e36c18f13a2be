"""Hedged Request: a second request, to another endpoint, where the first takes longer than nearly all do."""

from faultproof.patterns.hedged_request.hedged import Hedged, HedgedRequest, Worth

__all__ = ["Hedged", "HedgedRequest", "Worth"]
