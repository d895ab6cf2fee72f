"""A shop whose service is logged, and one of clicks with windows, as audits have them."""

from tests.audit.conftest import clicks_shop, made, shop

__all__ = ["clicks_shop", "made", "shop"]
