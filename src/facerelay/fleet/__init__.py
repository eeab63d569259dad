"""Enrolment: the site authority, the certificates of machines, and the bundles that carry them.

Works on files alone: nothing here listens, connects, or knows a role.
"""

from facerelay.fleet.bundle import Bundle, join, pack, read_bundle
from facerelay.fleet.dates import Ending, endings, see_own
from facerelay.fleet.issuer import Issuer, fingerprint
from facerelay.fleet.names import EnrolError
from facerelay.fleet.request import ask, public_key_of
from facerelay.fleet.roll import Enrolled, Roll

__all__ = [
    "Bundle", "Ending", "EnrolError", "Enrolled", "Issuer", "Roll", "ask", "endings", "fingerprint",
    "join", "pack", "public_key_of", "read_bundle", "see_own",
]  # fmt: skip
