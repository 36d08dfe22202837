"""Connections to object stores: where their credentials come from, how requests are repeated, what
their errors mean.
"""

import errno
import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from obstore.store import from_url

from tierscale.pipeline.errors import Refused

# How requests are repeated: so many times, with pauses that double from the first to the longest,
# for so long in all (seconds).
RETRIES, FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 12, 0.1, 10.0, 180.0
# Seconds for a connection, and for one whole request.
CONNECT_SECONDS, REQUEST_SECONDS = 10, 120
Answer = TypeVar("Answer")
# Asked for credentials by the client when the environment has none; it answers on machines of the
# cloud only.
METADATA_SERVICE = "169.254.169.254"


@lru_cache(maxsize=64)
def store_at(uri: str) -> Any:
    """An object store that is rooted at a URI; credentials, region and endpoint come from the
    environment, as for the store's own tools.
    """
    # An endpoint of one's own may speak plain HTTP only if it says so in its address.
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT")
        or ""
    )
    client: Any = {
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "allow_http": endpoint.startswith("http://"),
    }
    pauses = {
        "init_backoff": timedelta(seconds=FIRST_PAUSE),
        "max_backoff": timedelta(seconds=LONGEST_PAUSE),
        "base": 2,
    }
    retry: Any = {
        "max_retries": RETRIES,
        "backoff": pauses,
        "retry_timeout": timedelta(seconds=PATIENCE),
    }
    try:
        return from_url(uri, client_options=client, retry_config=retry)
    except (
        Exception
    ) as error:  # unknown schemes and bad names come as ValueError, TypeError or errors of obstore
        reason = str(error).splitlines()[0]
        raise Refused(
            f"{uri} is no address of an object store ({reason}); write for example"
            " s3://bucket/folder"
        ) from None


def asked(uri: str, request: Callable[[], Answer]) -> Answer:
    """The answer to a request that may be repeated. OSError: what lasts, as a file system would say
    it.

    obstore itself repeats most requests; those whose answer was cut in the middle come back here.
    """
    for pause in pauses():
        try:
            return request()
        except Exception as error:
            if not worth_repeating(error):
                raise as_os_error(error, uri) or error from error
        time.sleep(pause)
    try:
        return request()
    except Exception as error:
        raise as_os_error(error, uri) or error from error


def pauses() -> list[float]:
    """Seconds to wait before each repetition of a request."""
    return [min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) for attempt in range(RETRIES)]


def worth_repeating(error: BaseException) -> bool:
    """Whether an error is one of an object store that may pass."""
    told = as_os_error(error, "")
    return told is not None and told.errno == errno.EIO


def as_os_error(error: BaseException | None, uri: str) -> OSError | None:
    """An error of an object store as an OSError with one line of text; None: it is none."""
    if type(error).__module__.split(".")[0] != "obstore":
        return None
    if METADATA_SERVICE in str(error):
        told = (
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_SKIP_SIGNATURE=true for a public bucket"
        )
        return OSError(errno.EACCES, told, uri)
    number = (
        errno.EACCES
        if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError")
        else errno.EIO
    )
    return OSError(number, str(error).splitlines()[0][:300], uri)
