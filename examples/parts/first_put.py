# ruff: noqa: INP001 - a script, not a package
"""Write and delete one object: the bundled bucket is made by that."""

import asyncio
import os

from facerelay import settings
from facerelay.cloud.bucket import open_bucket

asyncio.run(open_bucket(settings.load(None).bucket).probe())
os._exit(0)  # the bucket library's threads do not always outlive Python's own farewell
