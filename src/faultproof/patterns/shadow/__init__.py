"""Shadow: a share of live requests goes to a candidate as well, and production does not notice."""

from faultproof.patterns.shadow.diff import Diff
from faultproof.patterns.shadow.findings import ShadowReport
from faultproof.patterns.shadow.http import HttpCandidate, HttpRequest
from faultproof.patterns.shadow.policy import ShadowPolicy
from faultproof.patterns.shadow.processes import ShadowProcesses
from faultproof.patterns.shadow.shadow import Shadow

__all__ = ["Diff", "HttpCandidate", "HttpRequest", "Shadow", "ShadowPolicy", "ShadowProcesses", "ShadowReport"]
