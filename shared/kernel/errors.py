"""The one error family. It crosses components and is rendered once, at the edge (design.md §10).

Each class says whether trying again can help, and its docstring is what its reader should do.
``message`` is a whole sentence for a person; internals (SQL, paths, stack traces) never enter it.
"""

from enum import Enum


class Kind(Enum):
    """Whether the same request can succeed later without anybody changing it."""

    FATAL = "fatal"
    RETRYABLE = "retryable"


class TmaError(Exception):
    """Something was not done; nothing was half done. Read ``message``, then ``remedy``."""

    kind = Kind.FATAL
    code = "internal"  # stable slug, part of the API: problem type, audit reason
    http_status = 500

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        pointer: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        """Take the sentence, what to do, the JSON pointer of the field, seconds to wait."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.pointer = pointer
        self.retry_after_s = retry_after_s


class BadRequestError(TmaError):
    """Correct the request: the message names the field and what is expected there."""

    code, http_status = "bad-request", 400


class TooLargeError(BadRequestError):
    """Send less at once: the message names the limit."""

    code, http_status = "too-large", 413


class UnauthenticatedError(TmaError):
    """Present a valid token or client certificate."""

    code, http_status = "unauthenticated", 401


class ForbiddenError(TmaError):
    """Ask an administrator for the right that the message names."""

    code, http_status = "forbidden", 403


class NotFoundError(TmaError):
    """Check the identifier; the object is not known here."""

    code, http_status = "not-found", 404


class ConflictError(TmaError):
    """The object's present state does not allow this; the message says which state it is in."""

    code, http_status = "conflict", 409


class InProgressError(ConflictError):
    """The same request is still running; ask again with the same key in a moment."""

    kind, code = Kind.RETRYABLE, "in-progress"


class PendingError(TmaError):
    """Ask again after ``retry_after_s``, with the same request: it waits for central to sign."""

    kind, code, http_status = Kind.RETRYABLE, "pending", 202

    def __init__(self, reference: str, *, retry_after_s: float) -> None:
        """Take the name under which the request waits, and seconds to wait."""
        super().__init__(
            "Central signs for this profile; the request waits until it has answered.",
            retry_after_s=retry_after_s,
        )
        self.reference = reference


class KeyReusedError(TmaError):
    """Use a new Idempotency-Key: this one was used for a request with another content."""

    code, http_status = "idempotency-key-reused", 422


class RefusedError(TmaError):
    """A rule of the profile or the grant says no: rule, offending value and remedy are named."""

    code, http_status = "refused", 403

    def __init__(self, rule: str, value: str, message: str, remedy: str) -> None:
        """Take the rule's name, the value that broke it, the sentence and what would help."""
        super().__init__(message, remedy=remedy)
        self.rule = rule
        self.value = value


class UnavailableError(TmaError):
    """Try again after ``retry_after_s``; nothing was issued and nothing was spent."""

    kind, code, http_status = Kind.RETRYABLE, "unavailable", 503


class TokenUnavailableError(UnavailableError):
    """Plug in the token that holds the issuing key; requests succeed once it is ready."""

    code = "token-unavailable"


class StorageFullError(UnavailableError):
    """Free disk space: issuing is stopped so that nothing is lost; revoking still works."""

    code = "storage-full"


class OutcomeUnknownError(UnavailableError):
    """Send the same request with the same key again: it tells what became of the first."""

    code = "outcome-unknown"


class UntrustedError(TmaError):
    """A signature, hash or binding does not hold: nothing of this message was used."""

    code, http_status = "untrusted", 400


class IncompatibleError(TmaError):
    """The data was written by a newer version: install that version, nothing was changed."""

    code = "incompatible"


class IntegrityError(TmaError):
    """Stop and call support: stored data or a signature is not what it must be."""

    code = "integrity"
