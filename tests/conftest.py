"""What holds for all tests."""

from __future__ import annotations

from functools import cache

import botocore.session
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about the code.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A run says whether a change has broken something, so each has the same examples. What looks for new ones is --hypothesis-profile=search.
settings.register_profile("same", patient, derandomize=True)
settings.register_profile("search", patient)
settings.load_profile("same")

# Every session of boto3 reads all it knows of S3 from files, which takes a good part of a second of CPU; here they are read once.
botocore.session.create_loader = cache(botocore.session.create_loader)
