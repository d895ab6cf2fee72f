"""Every bound of Larder, by name, with its unit in the name and its reason beside it."""

# --- requests -----------------------------------------------------------------------------------
LOOKUP_BODY_BYTES_MAX = 4 * 1024 * 1024
"""A lookup of 10,000 keys of 100 bytes is 1 MB of JSON; four times that leaves room for request fields."""

LOOKUP_VALUES_MAX = 1_000_000
"""Keys x features of one lookup: about 20 MB of answer, which one worker builds in about a second."""

LOOKUP_STORED_BYTES_MAX = 32 * 1024 * 1024
"""Stored bytes that one lookup reads, and that it answers with: a row is read once, and answered as often as it was
asked for. Ordinary rows have 300 bytes, so 10,000 keys x 3 views stay below a third of it."""

LOOKUP_BATCH_KEYS = 1_000
"""Keys of one round trip: what comes back is counted after each, and 1,000 keys take Redis about a millisecond."""

LOOKUP_KEYS_MAX = 10_000
"""Keys of one lookup: 10,000 x 3 views is about 30 ms of Redis time that other callers wait."""

LOOKUP_FEATURES_MAX = 5_000
"""Feature references of one request; the widest services known to us have about 1,000."""

PUSH_BODY_BYTES_MAX = 32 * 1024 * 1024
"""A push is checked whole before anything is written, so it is held in memory whole."""

PUSH_ROWS_MAX = 100_000
"""Rows of one push; larger loads belong in the batch source and a materialization."""

PUSH_VALUE_BYTES_MAX = 1024 * 1024
"""One pushed text or run of bytes: a thumbnail or a page of text; anything larger belongs in a file, its name here."""

PUSH_VALUE_ELEMENTS_MAX = 131_072
"""Elements of one pushed list, those of lists within it included: 1 MB of numbers, 30 times the widest embeddings."""

PUSH_VALUE_DEPTH_MAX = 16
"""Lists and maps within each other in one pushed value; Feast's own types end at three."""

PUSH_CHUNK_ROWS = 5_000
"""Rows of one column that become Arrow at once: about 10 ms in which no other request of the worker goes on."""

PUSH_FUTURE_SECONDS_MAX = 60
"""How far beyond the clock a pushed event time may lie: producers' clocks differ by seconds, not minutes."""

HISTORICAL_BODY_BYTES_MAX = 256 * 1024 * 1024
"""Entity rows of one retrieval over HTTP: about 10 M rows of Arrow with one integer key."""

HISTORICAL_ROWS_MAX = 10_000_000
"""Decoded entity rows of one retrieval over HTTP; larger ones run in Python against the same files."""

ENTITY_COLUMNS_MAX = 1_000
"""Columns of the entity rows of one retrieval, nested fields counted: keys, request fields and what travels along.
Planning costs some milliseconds a column, and the widest training sets known to us carry a few dozen."""

HISTORICAL_CONCURRENT_MAX = 2
"""Retrievals at once over all workers of a repo: each wants all cores and gigabytes, so more only slow each other."""

# --- Redis --------------------------------------------------------------------------------------
SCRIPT_ROWS_MAX = 100
"""Rows of one write script call: 500 rows hold Redis for 0.6 ms, 100 keep other callers under 0.15 ms."""

PIPELINE_CALLS_MAX = 20
"""Script calls in flight together: 2,000 rows a round trip hide the latency without a long output buffer."""

BULK_BYTES_MAX = 64 * 1024 * 1024
"""Keys and rows of one batch that go to Redis as one text; a batch of larger rows goes by script calls."""

SEND_PIECE_BYTES = 256 * 1024
"""Sent at once, each with the whole deadline of a round trip: two seconds for it are a megabit a second."""

SCAN_COUNT = 1_000
"""Keys that one SCAN step looks at, about 0.3 ms of Redis time."""

REDIS_TIMEOUT_SECONDS = 2.0
"""Deadline of one Redis round trip; a lookup that waited longer has missed its model's deadline anyway."""

REDIS_LATE_GRACE_SECONDS = 0.05
"""What a late reply gets on top: an event loop that was busy itself first reads what has come meanwhile."""

REDIS_BATCHES_MAX = 4_096
"""Batches that wait for replies on one connection: five for each connection that a server takes."""

REDIS_CONNECT_TIMEOUT_SECONDS = 2.0
"""Deadline for a new connection, so that a black-holed host fails a request instead of hanging it."""

LOOKUP_SECONDS_MAX = 5.0
"""All that one lookup may wait for Redis: a connection, every round trip and every retry. Above the deadlines of a
connect and a round trip together, which tell better what is wrong; below it lie answers that come byte by byte."""

PUSH_SECONDS_MAX = 30.0
"""The same of one view's share of a push: 100,000 rows are fifty round trips, a second or two beside other work."""

REDIS_KEY_BYTES_MAX = 64 * 1024
"""An encoded entity key; Redis allows 512 MB, but a key of this size is a document put in the wrong place."""

LEASE_SECONDS = 20
"""A materialization's lease, renewed at a third of this: longer than Redis is away in a failover, and no longer than
a person waits to repeat a run that was killed."""

# --- offline ------------------------------------------------------------------------------------
RETRIEVAL_THREADS_MAX = 256
"""Threads of one retrieval: each is a thread of the system's; ten thousand would hold a machine still."""

# --- materialization ----------------------------------------------------------------------------
MATERIALIZE_BATCH_ROWS = 10_000
"""Rows read, encoded and written together: memory is bounded by it, and 100 script calls amortize Arrow."""

MATERIALIZE_LATE_SECONDS = 3_600
"""How long a row may be on its way from its created time until it stands in the source: so much of what the last run
could have known is looked at once more. Jobs that write longer than an hour stamp their rows late, not early."""

MATERIALIZE_WRITERS = 2
"""Batches packed and written at a time: one is packed while Redis works on another; more would only wait for Redis."""

# --- source files -------------------------------------------------------------------------------
FOOTERS_MAX = 20_000
"""Footers kept by a process, about 1 KB each: a source of ten thousand files costs a stat a file from then on."""

COMPACT_FILE_BYTES_MAX = 256 * 1024 * 1024
"""Landed files are merged up to this size: large enough that a scan does not notice where they end."""

COMPACT_SMALL_BYTES = 64 * 1024 * 1024
"""A landed file below this size is merged with its neighbours; a larger one is not written again and again."""

COMPACT_ROW_GROUP_ROWS_MAX = 131_072
"""Rows of a row group of a merged file: what DuckDB's own are, so that one thread has one to read."""

COMPACT_ROW_GROUP_BYTES_MAX = 64 * 1024 * 1024
"""Decoded bytes of a row group of a merged file, which is held in memory until it is written."""

ERASE_READERS_WAIT_SECONDS = 30.0
"""How long an erasure waits for retrievals that still read the files it has replaced: most end within seconds, and a
longer one is told of, so that the command can be given again."""

ERASE_LOOKUP_KEYS = 1_000
"""Erased entity keys that are looked up again as the proof: one round trip. All of them are counted besides."""

# --- served vectors -----------------------------------------------------------------------------
SERVED_QUEUE_VALUES_MAX = 1_000_000
"""Values of served vectors that wait in one worker to be logged: about 50 MB, a second of a worker's best rate at
three times the usual 30 features. Beyond it vectors are dropped and counted; no lookup waits."""

SERVED_QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Stored bytes of the rows of the same: two of the largest lookups, or a second of ordinary ones several times over."""

SERVED_DRAIN_SECONDS = 0.2
"""How often a worker's log takes in what waits: objects that live no longer never become the collector's old ones."""

SERVED_SLICE_VALUES = 30_000
"""Values made into columns at a time, in 2 to 4 ms of processor time: what a column costs beside its values is then
little. A lookup waits for a few columns of it, some 100 microseconds."""

SERVED_FLUSH_SECONDS = 60.0
"""How old a worker's logged vectors get before they are written as a file: at most 1,440 files a day, worker and
service. So much a killed worker loses, and the audit tells that it did."""

SERVED_FILE_BYTES = 64 * 1024 * 1024
"""Columns of one service that are written at once, before their time."""

SERVED_BUFFER_BYTES_MAX = 256 * 1024 * 1024
"""Columns that wait in one worker where files cannot be written; beyond it the oldest are dropped and counted."""

SERVED_CLOSE_SECONDS = 5.0
"""How long a stopping worker waits for its last files: within the 10 s after which orchestrators kill."""

SERVED_SWEEP_SECONDS = 3_600.0
"""How often a worker looks for log files that are past their retention."""

SERVED_LOG_DAYS_MAX = 36_500
"""Retention of logged vectors: a century, beyond which a number of days is a mistake."""

AUDIT_BATCH_ROWS = 10_000
"""Logged vectors that are compared at a time: with 30 features some 10 MB of columns."""

AUDIT_PENDING_ROWS = 50_000
"""Vectors that differ somewhere, kept until their rows are looked for in the sources, once for all of them."""

AUDIT_WINDOW_KEYS = 1_000
"""Entity keys whose events an audit of a windowed view holds at a time: of 10,000 events each some 500 MB."""

AUDIT_DIFFERENCES_MAX = 10_000
"""Differences that an audit lists one by one; all are counted, and those beyond it only counted."""

ERASURES_KEPT_MAX = 10_000
"""Erasures that a repo remembers, 200 bytes each: when they were and by which join keys, and no values."""

# --- row-level transformations ------------------------------------------------------------------
TRANSFORM_ROWS_AT_ONCE = 65_536
"""Rows handed to a view's function at a time: enough that calls cost nothing beside the work, some 50 MB as pandas."""

TRANSFORM_BYTES_AT_ONCE = 64 * 1024 * 1024
"""Bytes of Arrow handed to a view's function at a time, for wide rows; as pandas they may be a few times that."""

TRANSFORM_SAMPLE_ROWS = 64
"""Rows of a file by which it is looked whether a function is row-wise: they go through it whole and in parts."""

TRANSFORMED_VERSIONS_KEPT = 4
"""Definitions of one view whose transformed files are kept: the one in force, what it replaced while processes still
follow it, and versions of a view that are served side by side."""

# --- windows ------------------------------------------------------------------------------------
WINDOW_LAST_VALUES_MAX = 1_000
"""The N of `last_N`: so many values, each with its times, are kept in every tile that has them."""

WINDOW_EVENTS_AT_ONCE = 200_000
"""Events that a materialization of a windowed view takes in at a time: some 50 MB with their keys and states."""

WINDOW_KEYS_AT_ONCE = 1_000
"""Entity keys whose tiles a materialization sends in one round trip: a megabyte or two."""

STREAM_KEYS_AT_ONCE = 1_000
"""Entity keys whose tiles are read in one round trip and then changed: a few megabytes of tiles at most."""

STREAM_SCRIPT_KEYS_MAX = 50
"""Entity keys of one script call that changes tiles: about 0.2 ms in which Redis serves nobody else."""

# --- the event log ------------------------------------------------------------------------------
STREAM_PARTITIONS_MAX = 256
"""Partitions of the event log: each wants a worker's attention, and 256 workers are more than one Redis keeps busy."""

LOG_ENTRIES_MAX = 200_000
"""Entries of one partition that wait to be applied or landed; a full log answers 503 until its worker has caught up."""

LOG_BYTES_MAX = 64 * 1024 * 1024
"""The same in bytes: eight partitions whose worker is away take 0.5 GB of Redis before pushes are refused."""

ENTRY_ROWS_MAX = 200
"""Rows of one entry: reading an entry costs a hundred times what a row in it does, and 200 hide that."""

ENTRY_BYTES_MAX = 64 * 1024
"""Bytes after which an entry takes no further row: a row of a megabyte is an entry of its own."""

APPEND_ENTRIES_MAX = 64
"""Entries of one append: some 12,000 rows, in a few milliseconds of Redis. Up to here a push is one atomic step."""

IDEMPOTENCY_KEYS_MAX = 1_000_000
"""Idempotency keys that one partition keeps of one day: ten pushes a second, in some 100 MB."""

IDEMPOTENCY_KEY_BYTES_MAX = 255
"""An `Idempotency-Key`: a UUID has 36 characters, and names put together from several parts stay below this."""

IDEMPOTENCY_DAYS_KEPT = 2
"""Days for which keys are kept, the one on which they came included: so each is kept for 24 hours at least."""

READ_ENTRIES_MAX = 500
"""Entries of one partition that its worker reads and applies together."""

READ_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of all partitions read together, from which on fewer entries are read the next time."""

TOGETHER_BYTES_MAX = 256 * 1024
"""Bytes of entries whose partitions are applied in the same round trips: some thousand events, a few milliseconds of
Redis' time; larger ones are applied one partition after the other, as the round trips do not matter then."""

READ_BLOCK_MS = 250
"""How long a worker waits for an entry before it looks after leases and landing."""

LAND_SECONDS = 1.0
"""Rows of the log land together after at most so long: a source gets one file a second from each worker."""

LAND_ROWS_MAX = 50_000
"""Rows that wait to land together, beyond which they land at once; some 50 MB in the worker."""

LAND_BYTES_MAX = 128 * 1024 * 1024
"""The same in bytes, as Arrow holds them: for rows of a megabyte it comes first."""

LAND_RETRY_SECONDS = 1.0
"""After a landing that failed (no room, no folder) it is tried again; meanwhile the log keeps the rows."""

TRIM_ENTRIES_MAX = 1_000
"""Entries that are taken out of a log in one step, a millisecond of Redis."""

OWNER_SECONDS = 6.0
"""The lease on a partition, renewed at a third of this: what a partition waits for a new worker after a crash."""

STALL_SECONDS_MAX = 60.0
"""A worker that has not come round for so long no longer renews its leases: something holds it."""

LINE_ATTEMPTS_MAX = 20
"""Attempts to draw a line through all partitions: each leaves twice as much time before the line as the one before."""

LINE_SLACK_US = 1_000
"""How far beyond the last id of all partitions a line is drawn at first: pushes go on meanwhile."""

LINE_SECONDS_MAX = 300.0
"""How long a materialization waits until what was pushed before it has landed: a full log takes its worker minutes."""

DEAD_LETTERS_MAX = 10_000
"""Rows kept that did not fit; beyond it the oldest go, and are counted."""

DEAD_LETTER_BYTES_MAX = 64 * 1024
"""Bytes kept of one row that did not fit; of a longer one its beginning, which cannot be replayed."""

INBOX_ENTRIES_MAX = 500
"""Entries of an inbox, or messages of a topic, that are checked and passed on together."""

INBOX_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of rows read from an inbox together, from which on fewer are read the next time."""

INBOX_ROW_BYTES_MAX = 1024 * 1024
"""One row of an inbox or topic as JSON; a longer one goes to the dead letters."""

# --- monitoring ---------------------------------------------------------------------------------
CATEGORIES_MAX = 10_000
"""Different values of a column that are counted each; of more, only groups by hash and the most frequent are."""

CATEGORY_GROUPS = 1_024
"""Groups by hash that stand for categories where there are too many of them."""

CATEGORY_CHARACTERS_MAX = 200
"""Characters of a text that are kept to show it; a longer one is told apart by a digest of all of it."""

TOP_MAX = 20
"""Most frequent values that are kept of a column with too many different ones."""

PROFILE_FEATURES_MAX = 10_000
"""Features of one subject that are profiled: a profile is held whole in memory, at most some 2 MB a feature."""

PROFILE_FILES_MAX = 4_000
"""Profiles of one subject that are read at a time: those of ten years of days; of more, the latest."""

PROFILE_FILE_BYTES_MAX = 512 * 1024 * 1024
"""One kept profile; a greater file is none that Larder wrote."""

PROFILE_BATCH_ROWS = 122_880
"""Rows that are summed up at a time, DuckDB's own row group: 100 KB to 1 MB a column, which stays in a core's cache."""

PROFILE_BATCH_CELLS = 4_000_000
"""Values of all columns that are summed up at a time: 32 MB of numbers, some hundred of texts."""

PROFILE_SUMS_MAX = 1_000
"""Columns times stretches of time that one scan sums up at once, a worker: each takes at most 0.5 MB."""

PROFILE_SLICES_MAX = 1_100
"""Stretches of time that one run profiles of a subject: three years of days."""

PROFILE_EMPTY_SLICES_MAX = 35
"""Stretches after the newest row that are profiled, empty as they are: they show that nothing came for a month."""

PROFILE_SAMPLE_ROWS = 200_000
"""Events at which the features of a windowed view are looked at, a stretch: the median is within 0.2 % of its rank."""

PROFILE_SAMPLES_AT_ONCE = 1_000_000
"""Events at which windows are computed in one retrieval, those of several stretches together."""

PROFILE_NAME_CHARACTERS_MAX = 120
"""Of a subject's name in the name of its folder, escaped; a longer one is told apart by a digest of all of it."""

FRESHNESS_KEPT_SECONDS = 15.0
"""How long a reading of all views' freshness is told before there is a new one: many pages and scrapes cost one."""

FRESHNESS_PAUSE_SHARE = 20
"""After a reading so many times as long passes until the next as a core was busy with it: it has a twentieth of one at
most, in a repo of thousands of files too."""

FRESHNESS_VIEWS_AT_ONCE = 500
"""Views whose newest events are asked of Redis in one command, a fraction of a millisecond of its time."""

FRESHNESS_SCAN_ROWS_MAX = 20_000_000
"""Rows of one source whose event times are read because footers do not tell: about a second of one core, and then
kept. The files of a larger source are to tell."""

FRESHNESS_BATCH_ROWS = 131_072
"""Rows whose event times are read at a time: a megabyte."""

AUDITS_KEPT = 20
"""Reports of audits that are kept: of the longest, with 10,000 differences each, some 100 MB."""

AUDIT_BYTES_MAX = 64 * 1024 * 1024
"""One kept report; ten times what 10,000 differences take. A larger file is none of ours, and is not read."""

# --- registry -----------------------------------------------------------------------------------
REGISTRY_REFRESH_SECONDS = 2.0
"""How often a server looks whether the registry has changed: one stat of a file, or one read where there is none."""

PLANS_MAX = 256
"""Compiled lookup plans kept per registry version; an ad-hoc feature list is compiled in about a millisecond."""

# --- drift --------------------------------------------------------------------------------------
DRIFT_BINS = 20
"""Bins of equal mass on which numbers are compared: each holds a twentieth, so 100 rows put five into each."""

DRIFT_EXPECTED_MIN = 5
"""Rows that a cell must be expected to hold in the smaller sample; cells with fewer are tested together (Cochran)."""

DRIFT_FILES_MAX = 1_000
"""Reports of drift of one subject that are read for its history, the latest: three years of days, some 50 MB."""

DRIFT_FEATURES_KEPT_MAX = 5_000
"""Features of the last reports of drift that a process keeps once it has read them, some 10 KB each."""

DRIFT_POINTS_KEPT_MAX = 100_000
"""Features of runs that a process keeps for drift over time, some 500 bytes each: a year of 270 features."""

DRIFT_FILE_BYTES_MAX = 64 * 1024 * 1024
"""One report: 10,000 features of 6 KB; a greater file is not one."""

MONITORING_FILE_BYTES_MAX = 1024 * 1024
"""`monitoring.yaml`: thousands of features with thresholds of their own."""

MONITORING_DAYS_MAX = 3_660
"""Days that a current or reference stretch of drift may have: ten years."""

ROWS_ALIKE_MAX = 1_000_000
"""Rows that may be said to be worth a single independent one: a year of readings by the minute is half as many."""

WEBHOOK_SECONDS_MAX = 60.0
"""The longest that all attempts to tell a webhook may be set to take together; cron waits for it."""

WEBHOOK_ATTEMPTS_MAX = 10
"""Attempts to tell a webhook that may be set."""

WEBHOOK_WAIT_SECONDS = 0.5
"""The wait before a second attempt, doubled for each further one; up to half as much is added at random."""

WEBHOOK_ALARMS_MAX = 50
"""Alarms that are told one by one in what is posted; others are counted. Chat services refuse long texts."""

DRIFT_CELLS_SHOWN_MAX = 30
"""Categories of a feature that a report of drift lists one by one, those that differ most; the others are summed."""

# --- the catalogue ------------------------------------------------------------------------------
CATALOGUE_QUERY_WORDS_MAX = 10
"""Words of a search: each is looked for in every entry, and nobody types more."""
