"""SQL of the point-in-time join of one feature view, from plain values.

The plan has three narrow steps and one wide one, because sorting wide rows is what makes an as-of join slow:
1. *matched*: an ASOF join on (keys, instant) finds for each entity row the event time that answers it. With the created
   cutoff the instant is the visible time v = max(e, c), and only rows that are the newest in e among all that were
   visible by then take part. Rows that share (keys, e, v) are alike so far: v decides by c wherever c > e.
2. *chosen*: among the rows of each matched (keys, e, v), the one of greatest c (null oldest), then of last position.
3. *answer*: the features of the chosen rows, once per entity row, in the order of the entity rows.

Source: design section 3.1 for the semantics, section 5 for the shape.
"""

from dataclasses import dataclass

from store.kernel.source_scan import LOWEST_INSTANT, NANOSECONDS_PER_US, Bounds, Scan, rows_sql

ENTITY_TABLE = "larder_entity_rows"


@dataclass(frozen=True, slots=True)
class PointInTimeJoin:
    """The join of one feature view to the entity rows.

    Shapes: the entity rows are a table `larder_entity_rows` with columns `rid` (0, 1, ... in their order), `t` (their
    instant, BIGINT) and key columns of which `entity_keys` names those of this view, in the order of the scan's keys.

    Units: `ttl_us` microseconds, 0 for no limit; `t` and the bounds `t_min`, `t_max` are nanoseconds if
    `is_entity_ns`, else microseconds. The bounds are None where no entity row has a time.
    """

    number: int
    scan: Scan
    entity_keys: tuple[str, ...]
    ttl_us: int
    is_entity_ns: bool
    t_min: int | None
    t_max: int | None
    has_cutoff: bool = False
    has_few_rows: bool = False

    @property
    def is_ns(self) -> bool:
        """Whether instants are compared in nanoseconds: the finest unit of either side."""
        return self.is_entity_ns or self.scan.is_ns

    @property
    def statements(self) -> tuple[str, ...]:
        """Returns the statements to run before `answer_sql`, in order; each creates one table."""
        matched = f"CREATE TABLE {self._matched} AS {self.matched_sql}"
        chosen = f"CREATE TABLE {self._chosen} AS {self._chosen_sql}"
        return matched, chosen

    @property
    def matched_sql(self) -> str:
        """Returns the SELECT of one row `rid, k0.., e[, v]` per entity row that has an answer."""
        scale = f"CAST(t AS HUGEINT) * {NANOSECONDS_PER_US}" if self.is_ns and not self.is_entity_ns else "t"
        keys = zip(self.entity_keys, self.scan.key_names, strict=True)
        equal = "".join(f"q.{entity} = h.{source} AND " for entity, source in keys)
        columns = "".join(f", h.{name}" for name in self._group_columns)
        # The time to live is applied to the match, not to the candidates: if the newest row is too old, all are.
        fresh = f" WHERE h.e >= q.t - {self._ttl}" if self.ttl_us else ""
        return (
            f"SELECT q.rid{columns} FROM (SELECT * REPLACE ({scale} AS t) FROM {ENTITY_TABLE} WHERE t IS NOT NULL) q "
            f"ASOF JOIN ({self._history_sql}) h ON {equal}q.t >= h.{self._visible}{fresh}"
        )

    @property
    def answer_sql(self) -> str:
        """Returns the SELECT of `rid, f0..` in order of `rid`, one row per entity row that has an answer."""
        using = ", ".join(self._group_columns)
        features = "".join(f", s.{name}" for name in self.scan.feature_names)
        rows = rows_sql(self.scan, self.is_ns, ["ptr", "e", *self.scan.feature_names])
        return (
            f"SELECT p.rid{features} FROM (SELECT * FROM ({rows}) WHERE {self._bounds.condition('e')}) s "
            f"JOIN (SELECT m.rid, c.ptr FROM {self._matched} m JOIN {self._chosen} c USING ({using})) p "
            f"ON s.ptr = p.ptr ORDER BY p.rid"
        )

    @property
    def _matched(self) -> str:
        return f"larder_matched_{self.number}"

    @property
    def _chosen(self) -> str:
        return f"larder_chosen_{self.number}"

    @property
    def _visible(self) -> str:
        return "v" if self.has_cutoff else "e"

    @property
    def _group_columns(self) -> tuple[str, ...]:
        return (*self.scan.key_names, "e", "v") if self.has_cutoff else (*self.scan.key_names, "e")

    @property
    def _ttl(self) -> int:
        return self.ttl_us * NANOSECONDS_PER_US if self.is_ns else self.ttl_us

    @property
    def _bounds(self) -> Bounds:
        if self.t_min is None or self.t_max is None:
            return Bounds(low=1, high=0)
        factor = NANOSECONDS_PER_US if self.is_ns and not self.is_entity_ns else 1
        low = self.t_min * factor - self._ttl if self.ttl_us else None
        return Bounds(low, self.t_max * factor)

    @property
    def _history_sql(self) -> str:
        """Returns the SELECT of the rows that can answer: `k0.., e[, v]`."""
        rows = self._rows_sql()
        if not self.has_cutoff:
            return rows
        keys = ", ".join(self.scan.key_names)
        partition = f"PARTITION BY {keys} " if keys else ""
        # The default frame takes in all rows of the same v, so that order among them plays no part.
        newest = f"SELECT *, max(e) OVER ({partition}ORDER BY v) AS newest FROM ({rows})"
        return f"SELECT {', '.join(self._group_columns)} FROM ({newest}) WHERE e = newest"

    def _rows_sql(self, *extra: str) -> str:
        """Returns the SELECT of the group columns and extra ones, of rows within the bounds and with complete keys."""
        times = ["e", "c"] if self.has_cutoff else ["e"]
        wanted = dict.fromkeys([*self.scan.key_names, *times, *extra])
        conditions = [self._bounds.condition("e"), *(f"{key} IS NOT NULL" for key in self.scan.key_names)]
        visible = ""
        if self.has_cutoff:
            visible = ", greatest(e, c) AS v"
            conditions += ["c IS NOT NULL", Bounds(high=self._bounds.high).condition("c")]
        rows = rows_sql(self.scan, self.is_ns, list(wanted))
        selected = f"SELECT *{visible} FROM ({rows}) WHERE {' AND '.join(conditions)}"
        if not (self.has_few_rows and self.entity_keys):
            return selected
        keys = list(zip(self.entity_keys, self.scan.key_names, strict=True))
        names = ", ".join(f"{entity} AS {source}" for entity, source in keys)
        equal = " AND ".join(f"r.{source} = w.{source}" for _, source in keys)
        return f"SELECT r.* FROM ({selected}) r SEMI JOIN (SELECT DISTINCT {names} FROM {ENTITY_TABLE}) w ON {equal}"

    @property
    def _chosen_sql(self) -> str:
        groups = f"SELECT DISTINCT {', '.join(self._group_columns)} FROM {self._matched}"
        extra = ("ptr", "c") if self.scan.has_created else ("ptr",)
        return chosen_sql(self._rows_sql(*extra), groups, self._group_columns, self.scan.has_created)


def chosen_sql(rows: str, groups: str, group_columns: tuple[str, ...], has_created: bool) -> str:
    """Returns the SELECT of the group columns and `ptr`: of each group the row of greatest c, then of last position.

    Args:
        rows: a SELECT of the group columns, `ptr` and, if `has_created`, `c`.
        groups: a SELECT of the group columns, one row per group.
        group_columns: names without nulls in them.
        has_created: whether rows have a created time; a null one is older than any.
    """
    order = f"(coalesce(s.c, {LOWEST_INSTANT}), s.ptr)"
    pick = f"arg_max(s.ptr, {order})" if has_created else "max(s.ptr)"
    columns = ", ".join(f"g.{name}" for name in group_columns)
    equal = " AND ".join(f"s.{name} = g.{name}" for name in group_columns)
    return f"SELECT {columns}, {pick} AS ptr FROM ({rows}) s JOIN ({groups}) g ON {equal} GROUP BY {columns}"
