"""Keeps two of Feast's warnings out of its users' terminals, where they are wrong."""

import logging
import warnings

_SERVED_WHILE_MATERIALIZING = "`serve_features_while_materializing` is enabled but `registry_type` is 'file'"


_EXPERIMENTAL = "Stream feature views are experimental features in alpha development"


class _NotThis(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is another one than the warning that is wrong here."""
        return not record.getMessage().startswith(_SERVED_WHILE_MATERIALIZING)


def quieten() -> None:
    """Drops Feast's warnings that `serve_features_while_materializing` has no effect, and that windows may not work.

    Of the first: without it Feast refuses to read a view from the second materialization on, and for ever after a
    killed one. Of the second: it is said of Feast's stores each time that a stream view is read. Called when Feast
    loads a plug-in, which is before it reads the registry's settings and the registry.
    """
    warnings.filterwarnings("ignore", message=_EXPERIMENTAL, category=RuntimeWarning)
    logger = logging.getLogger("feast.repo_config")
    if not any(isinstance(known, _NotThis) for known in logger.filters):
        logger.addFilter(_NotThis())
