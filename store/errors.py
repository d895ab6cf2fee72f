"""Everything that Larder refuses or cannot do, as one tree with no HTTP in it.

LarderError
├── InputError (ValueError)             the caller's request is wrong
│   ├── UnknownObject (KeyError)        no such feature view, feature, service, push source
│   ├── MissingJoinKey (KeyError)       a join key or request field is not among the entity columns
│   ├── UnequalLengths                  entity columns of different lengths
│   ├── WrongType (TypeError)           a value or column does not fit its declared type
│   ├── EntityRowsError                 entity rows without a usable timestamp column, or clashing names
│   ├── PushedRowsError                 pushed rows do not fit the batch source's columns
│   ├── TransformationError             a view's row-level transformation fails, or gives what does not fit
│   ├── BadBody                         a request body that cannot be parsed or lacks a field
│   ├── OtherPush                       an idempotency key that came with another push before
│   └── TooLarge                        a request beyond a named bound
├── DefinitionError (ValueError)        a definition in the feature repo cannot be served as declared
├── ConfigError (ValueError)            feature_store.yaml or the environment is wrong
├── SourceError (OSError)               a declared source cannot be used
│   ├── SourceUnreadable                file missing, truncated, or not Parquet
│   └── SourceColumnMissing             a declared column is not in the file
├── OfflineStoreError (RuntimeError)    a retrieval that failed inside DuckDB
│   └── OutOfSpace                      no room for spilling or for the answer
├── RegistryUnavailable (RuntimeError)  the registry is missing, torn, or lost the project
├── RegistryConflict (RuntimeError)     two processes changed the same registry object
├── OnlineStoreError (RuntimeError)     Redis cannot serve
│   ├── OnlineStoreUnavailable (ConnectionError)
│   ├── OnlineStoreTimeout (TimeoutError)
│   ├── StoredRowError                  a stored row of a format that this version does not know
│   ├── LogEntryError (ValueError)      an entry of the event log of a format that this version does not know
│   ├── LogFull                         the event log has no room before its workers have caught up
│   └── OwnershipLost                   another worker has taken over a partition of the event log
└── MaterializationBusy (RuntimeError)  another run of the same view holds the lease

Children also inherit the builtin named in brackets, so that callers who know only Python catch them.
Messages name the thing, the offending value, what was expected and what to do; never a secret.
"""

import reprlib
from typing import Any

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 200
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = _SHOWN.maxset = 10
_SHOWN.maxlevel = 3
_FOREIGN_CHARS_MAX = 400


def shown(value: Any) -> str:
    """Returns a value as a message quotes it: its `repr`, cut in the middle where it is long.

    Units: text and numbers at most about 200 characters, collections at most 10 elements, three levels deep.
    """
    return _SHOWN.repr(value)


def shortened(text: object) -> str:
    """Returns the text of somebody else's message, cut where it is long: it may quote what a caller sent."""
    said = str(text)
    return said if len(said) <= _FOREIGN_CHARS_MAX else f"{said[:_FOREIGN_CHARS_MAX]}..."


class LarderError(Exception):
    """The root of all errors that Larder raises on purpose."""

    def __str__(self) -> str:
        # KeyError and OSError format their arguments in ways of their own; a message is a message.
        return str(self.args[0]) if self.args else type(self).__name__


class InputError(LarderError, ValueError):
    """The caller's request is wrong; repeating it unchanged cannot succeed."""


class UnknownObject(InputError, KeyError):
    """A feature view, feature, feature service, entity or push source that is not registered."""


class MissingJoinKey(InputError, KeyError):
    """A join key or request field that the features need is not among the entity columns."""


class UnequalLengths(InputError):
    """Entity columns (or pushed columns) of different lengths."""


class WrongType(InputError, TypeError):
    """A value or column does not fit its declared type."""


class EntityRowsError(InputError):
    """Entity rows cannot be used: no timestamp column, two candidates for it, clashing names."""


class PushedRowsError(InputError):
    """Pushed rows do not fit the batch source's columns; nothing of the push was written."""


class TransformationError(InputError):
    """A view's row-level transformation that fails, or gives rows that do not fit the view; nothing was written."""


class BadBody(InputError):
    """A request body that cannot be parsed, or that lacks or contradicts a field."""


class OtherPush(InputError):
    """An `Idempotency-Key` that has come before with another push; nothing of this one was written."""


class TooLarge(InputError):
    """A request beyond a bound named in `store.limits`."""


class DefinitionError(LarderError, ValueError):
    """A definition in the feature repo that cannot be served as declared."""


class ConfigError(LarderError, ValueError):
    """A setting in feature_store.yaml or the environment that is wrong."""


class SourceError(LarderError, OSError):
    """A declared source cannot be used."""


class SourceUnreadable(SourceError):
    """A source file that is missing, truncated, not permitted, or not Parquet."""


class SourceColumnMissing(SourceError):
    """A declared column that is not in the source."""


class OfflineStoreError(LarderError, RuntimeError):
    """A retrieval that failed inside DuckDB for no fault of the caller's."""


class OutOfSpace(OfflineStoreError):
    """No room for spilling or for the answer; nothing stays under the final name."""


class RegistryUnavailable(LarderError, RuntimeError):
    """The registry is missing or torn, or it no longer holds the project."""


class RegistryConflict(LarderError, RuntimeError):
    """Another process changed the same registry object meanwhile; nothing was written, so run the command again."""


class OnlineStoreError(LarderError, RuntimeError):
    """Redis cannot serve this request now."""


class OnlineStoreUnavailable(OnlineStoreError, ConnectionError):
    """Redis cannot be reached, is loading, failing over, or refuses the connection."""


class OnlineStoreTimeout(OnlineStoreError, TimeoutError):
    """Redis did not answer within the deadline."""


class StoredRowError(OnlineStoreError):
    """A stored row whose format or layout this version of Larder does not know."""


class LogEntryError(OnlineStoreError, ValueError):
    """An entry of the event log whose format this version of Larder does not know."""


class LogFull(OnlineStoreError):
    """The event log has no room for a push; it can be repeated when the workers have caught up."""


class OwnershipLost(OnlineStoreError):
    """Another worker has taken over a partition, so that nothing more may be written for it."""


class MaterializationBusy(LarderError, RuntimeError):
    """Another materialization of the same feature view holds the lease."""
