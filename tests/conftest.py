"""Every session of boto3 reads all it knows of S3 from files, which takes a good part of a second of CPU; here they are read once."""

from __future__ import annotations

from functools import cache

import botocore.session

botocore.session.create_loader = cache(botocore.session.create_loader)
