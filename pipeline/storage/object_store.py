"""Connections to object stores: credentials, how often requests are repeated, what errors mean.

Every request is repeated by one side only, so that a store that is down gets it RETRIES + 1 times.
What consists of many requests (long uploads, downloads) is left to obstore, which repeats each of
them, and goes on where it was cut. Everything else is repeated here, through a connection that
repeats nothing itself, because obstore takes some answers for final that were only cut: listings,
and refusals such as "no such object".
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import (
    BaseError,
    GenericError,
    JoinError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, from_url

from tierscale.pipeline.errors import Refused

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

# How requests are repeated: so many times, with pauses that double from the first to the longest,
# for so long in all (seconds).
RETRIES, FIRST_PAUSE, LONGEST_PAUSE, RETRY_SECONDS = 12, 0.1, 10.0, 180.0
# Seconds for a connection, and for one whole request.
CONNECT_SECONDS, REQUEST_SECONDS = 10, 120
Answer = TypeVar("Answer")
# Errors of an object store that may pass: no answer, an error of the server, a task that was lost.
PASSING = (GenericError, JoinError)
# The client asks here for credentials when the environment has none; it answers on machines of the
# cloud only. obstore has no class for that error, only this address in its text.
METADATA_SERVICE = "169.254.169.254"
# Codes that S3 writes into the body of a refusal where the credentials are at fault. Most come with
# status 400, for which obstore has no class of its own.
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
INVALID = frozenset(
    {"InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"}
)
# Statuses of refusals that stay; obstore has classes for them, but not where a listing gets one.
DENIED_STATUSES, MISSING_STATUS = (401, 403), 404


@lru_cache(maxsize=64)
def store_at(uri: str, repeating: bool = True) -> ObjectStore:
    """An object store that is rooted at a URI.

    Credentials, region and endpoint come from the environment, as for the store's own tools.
    repeating: whether it repeats requests itself. Refused: the URI is none of an object store.
    """
    # An endpoint of one's own may speak plain HTTP only if it says so in its address.
    endpoint = (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ENDPOINT")
        or ""
    )
    client: ClientConfig = {
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "allow_http": endpoint.startswith("http://"),
    }
    retry: RetryConfig = {
        "max_retries": RETRIES if repeating else 0,
        "backoff": {
            "init_backoff": timedelta(seconds=FIRST_PAUSE),
            "max_backoff": timedelta(seconds=LONGEST_PAUSE),
            "base": 2,
        },
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
    }
    try:
        return from_url(uri, client_options=client, retry_config=retry)
    # Unknown schemes and bad names come as ValueError, TypeError or errors of obstore.
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise Refused(
            f"{uri} is not an address of an object store ({reason}); write for example"
            " s3://bucket/folder"
        ) from None


@contextmanager
def requests_to(uri: str) -> Iterator[None]:
    """A block of requests about `uri`: errors of obstore leave it as OSError with one sentence."""
    try:
        yield
    except BaseError as error:
        raise described(error, uri) from error


def with_retries(uri: str, request: Callable[[], Answer]) -> Answer:
    """The answer to a request of a connection that repeats nothing, repeated while errors may pass.

    OSError: what lasts, as a file system would say it.
    """
    remaining = pauses()
    while True:
        try:
            return request()
        except BaseError as error:
            if not remaining or not may_pass(error):
                raise described(error, uri) from error
        time.sleep(remaining.pop(0))


def pauses() -> list[float]:
    """Seconds to wait before each repetition of a request."""
    return [min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) for attempt in range(RETRIES)]


def may_pass(error: BaseError) -> bool:
    """Whether the same request may succeed later."""
    if not isinstance(error, PASSING) or METADATA_SERVICE in str(error):
        return False
    final = (*DENIED_STATUSES, MISSING_STATUS)
    return status_of(error) not in final and _field(error, "Code") not in EXPIRED | INVALID


def status_of(error: BaseError) -> int | None:
    """The HTTP status of the answer that an error tells of; None: it tells of no answer."""
    found = re.search(r"status code: (\d{3})\b", str(error))
    return int(found[1]) if found else None


def _field(error: BaseError, name: str) -> str:
    """A field of the XML by which an S3 store says why it refuses; empty where there is none."""
    found = re.search(rf"<{name}>(.*?)</{name}>", str(error), re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def list_objects(base: str, prefix: str) -> list[ObjectMeta]:
    """All objects of the store `base` whose keys begin with `prefix` ("" for all), in its order.

    A listing that is cut goes on behind the last object that arrived. OSError: it failed.
    """
    listed: list[ObjectMeta] = []

    def complete() -> bool:
        """Add what is missing. False: the listing was cut, but something arrived."""
        before = len(listed)
        offset = listed[-1]["path"] if listed else None
        try:
            for batch in obstore.list(store_at(base, False), prefix or None, offset=offset):
                listed.extend(batch)
        except PASSING:
            if len(listed) == before:
                raise
            return False
        return True

    while not with_retries(f"{base}/{prefix}", complete):
        pass
    return listed


def list_directly(base: str, prefix: str) -> list[str]:
    """Keys of objects and of folders directly below `prefix` ("" for all). OSError: it failed."""
    answer = with_retries(
        f"{base}/{prefix}",
        lambda: obstore.list_with_delimiter(store_at(base, False), prefix=prefix or None),
    )
    return [*answer["common_prefixes"], *(meta["path"] for meta in answer["objects"])]


def as_os_error(error: BaseException | None, uri: str) -> OSError | None:
    """An error of an object store as an OSError with one line of text; None: it is none."""
    return described(error, uri) if isinstance(error, BaseError) else None


def described(error: BaseError, uri: str) -> OSError:
    """An error of obstore as an OSError with one line of text: the store's own words, if any."""
    if METADATA_SERVICE in str(error):
        reason = (
            "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            " AWS_SKIP_SIGNATURE=true for a public bucket"
        )
        return OSError(errno.EACCES, reason, uri)
    code = _field(error, "Code")
    words = ": ".join(filter(None, (code, _field(error, "Message"))))
    reason = words or str(error).splitlines()[0]
    if code in EXPIRED:
        reason = f"the credentials have expired ({words}): renew them"
    elif code in INVALID:
        reason = f"the credentials are not accepted ({words}): check them"
    denied = (
        isinstance(error, PermissionDeniedError | UnauthenticatedError)
        or code in EXPIRED | INVALID
        or status_of(error) in DENIED_STATUSES
    )
    return OSError(errno.EACCES if denied else errno.EIO, reason[:300], uri)
