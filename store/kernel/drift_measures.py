"""The names of what drift is measured by, and of what is said of it; cheap to import, unlike the measures."""

from enum import StrEnum

LENGTH = "length_"
"""Stands before the names of measures of the lengths of texts and the sizes of lists."""


class Measure(StrEnum):
    """What is measured; the text is the name that settings, reports and files use."""

    PSI = "psi"
    JENSEN_SHANNON = "jensen_shannon"
    KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
    WASSERSTEIN = "wasserstein"
    MEAN_SHIFT = "mean_shift"
    CHI_SQUARED = "chi_squared"
    CATEGORY_SHIFT = "category_shift"
    NEW_CATEGORY_RATE = "new_category_rate"
    NULL_RATE = "null_rate"
    NAN_RATE = "nan_rate"
    INFINITY_RATE = "infinity_rate"
    UNKNOWN_KEY_RATE = "unknown_key_rate"
    STALE_RATE = "stale_rate"


class Verdict(StrEnum):
    """What is said of a measure, and of a feature; the text is what files and JSON have."""

    ALARM = "alarm"
    STABLE = "stable"
    TOO_FEW = "too_few"
    NOT_COMPARED = "not_compared"
    NOT_JUDGED = "not_judged"
