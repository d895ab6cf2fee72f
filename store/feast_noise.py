"""Keeps one of Feast's warnings out of its users' terminals, where it is wrong."""

import logging

_SERVED_WHILE_MATERIALIZING = "`serve_features_while_materializing` is enabled but `registry_type` is 'file'"


class _NotThis(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is another one than the warning that is wrong here."""
        return not record.getMessage().startswith(_SERVED_WHILE_MATERIALIZING)


def quieten() -> None:
    """Drops Feast's warning that `serve_features_while_materializing` has no effect on a file registry.

    It has: without it Feast refuses to read a view from the second materialization on, and for ever after a
    killed one. Called when Feast loads a plug-in, which is before it reads the registry's settings.
    """
    logger = logging.getLogger("feast.repo_config")
    if not any(isinstance(known, _NotThis) for known in logger.filters):
        logger.addFilter(_NotThis())
