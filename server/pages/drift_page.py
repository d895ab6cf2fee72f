"""The page of drift: the last report of each subject."""

from server.pages.asked import Asked, Screen


def drift(asked: Asked) -> Screen:
    """Returns the page of drift, subjects with alarms first."""
    reports = sorted(asked.monitored.reports(asked), key=lambda report: not report["alarms"])
    return Screen("drift.html", "Drift", {"reports": reports, "problems": asked.monitored.problems})
