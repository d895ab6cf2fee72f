"""Bounds that only the HTTP shell has; those that the store enforces as well are in `store.limits`."""

SMALL_BODY_BYTES_MAX = 64 * 1024
"""A materialization request: two instants and a list of view names."""

HISTORICAL_JSON_BODY_BYTES_MAX = 32 * 1024 * 1024
"""Entity rows as JSON: parsing 32 MB holds the interpreter for about 0.2 s; more rows come as Arrow."""

HISTORICAL_JSON_ROWS_MAX = 100_000
"""Rows answered as JSON: with 30 features about 60 MB of text built in memory; more rows go as Arrow."""

HISTORICAL_DECODED_BYTES_MAX = 1024 * 1024 * 1024
"""Decoded entity rows of one retrieval: 10 M rows of about 100 bytes, two retrievals at once in 2 GB."""

HISTORICAL_JSON_VALUES_MAX = 5_000_000
"""Rows x columns answered as JSON: the table and its text, about 500 MB, stand in memory together."""

HISTORICAL_BATCH_ROWS = 65_536
"""Rows of one batch of an answer: some MB, so that a slow reader holds little; a row group of a Parquet answer."""

HISTORICAL_BATCH_VALUES = 2_000_000
"""Rows x columns of one batch, 16 MB of numbers: an answer of a thousand columns comes in batches of fewer rows."""

HISTORICAL_BODIES_BYTES_MAX = 1024 * 1024 * 1024
"""Bodies of retrievals that one worker has in memory at once: four of the largest, or thousands of slow senders."""

BODY_PARSE_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""Memory that parsing one body may take: the decoded rows, a copy while they are put together, and room to spare."""

PARQUET_BODY_BATCH_ROWS = 8_192
"""Rows of a Parquet body decoded before they are counted: at most 1 GB if each holds a text of 128 KB."""

ANSWER_STALL_SECONDS = 60.0
"""How long an answer waits for a client that reads nothing; one that reads slowly gets what it reads on top."""

ANSWER_BYTES_PER_SECOND_MIN = 128 * 1024
"""How fast a client has to read an answer, 1 Mbit/s; below it the answer would hold its place for hours."""

RETRIEVAL_NICENESS = 10
"""Of processes that retrieve: a lookup that wants a core gets nine tenths of it."""

RETRIEVAL_OOM_SCORE = 500
"""Of the same: on a machine without memory they go first, and the server stays."""

ZYGOTE_END_SECONDS = 5.0
"""How long a zygote may take to kill its children and remove what they spilled."""

BODY_SECONDS_MAX = 60.0
"""How long a client may take to send its body: 256 MB in a minute is 34 Mbit/s; a trickle holds a slot no longer."""

HEAD_BYTES_MAX = 96 * 1024
"""Request line and headers: a URL at its bound and 32 KB of headers, twice what common proxies let through."""

URL_BYTES_MAX = 64 * 1024
"""A retrieval with its features in the query: 1,500 references of 40 characters; longer ones come by service name."""

HEAD_SECONDS_MAX = 10.0
"""How long a head may take, and a new connection to begin one: an ordinary head comes in one packet."""

CONNECTIONS_MAX = 800
"""Connections of one worker: with files and Redis they stay below the 1,024 open files that a process usually may
have. Callers' pools hold tens each; beyond it a proxy in front is due."""

REFUSED_LINGER_SECONDS = 1.0
"""How long the rest of a refused head is read and thrown away: an unread rest would make the kernel cut the answer."""

PUSH_INLINE_BYTES_MAX = 64 * 1024
"""A push up to this size is parsed at once, in about a millisecond; a larger one beside the event loop."""

PUSH_CONCURRENT_MAX = 2
"""Larger pushes that one worker parses and checks at once: each wants a core for up to a second."""

BODIES_BYTES_MAX = 256 * 1024 * 1024
"""Bodies of one path that a worker has in memory at once: eight of the largest pushes, or thousands of slow senders."""

MATERIALIZE_CONCURRENT_MAX = 2
"""Materializations at once in one worker: each wants a core, and a lookup wants the other."""

ASYNC_REFUSAL_SECONDS = 1.0
"""How long a background materialization may take to fail at once (unknown view, lease held) before 202 is answered."""

DETAIL_CHARS_MAX = 4_000
"""Of the sentence in a refusal; one that lists what a caller sent, like column names, is cut in the middle."""

BUSY_RETRY_SECONDS = 5
"""What a full server tells a client to wait: about one retrieval of 1 M rows."""

UNAVAILABLE_RETRY_SECONDS = 1
"""What a client is told to wait when Redis or the registry is away: failover and reload take about a second."""

GC_THRESHOLDS = (20_000, 20, 20)
"""New objects before a collection, and collections of one age before the next older one. What is loaded at the start
is frozen, so the oldest age is small."""

GAUGE_SECONDS = 5.0
"""How often each worker renews the gauges that describe its state, so that a scrape of any worker is fresh."""

SHUTDOWN_SECONDS = 10
"""How long a stopping server lets requests in flight finish; orchestrators kill after 10 s (Docker) or 30 s."""

KEEP_ALIVE_SECONDS = 75
"""Idle time of a kept connection, above the 60 s of common proxies, so that the proxy closes first."""

CONNECTION_BACKLOG = 2048
"""Connections that wait for an accept while a worker is busy; the kernel caps it at net.core.somaxconn."""

WORKER_HEALTH_SECONDS = 30
"""How long a worker may be silent before it is replaced: loading Feast on a busy machine takes over 10 s."""

TOKEN_BYTES_MAX = 512
"""A bearer token: ours have 43 characters; hashing a megabyte for each wrong guess would be free work for others."""

TOKENS_MAX = 1_000
"""Entries of a tokens file: all are compared for every request, 0.3 microseconds each."""

PAGE_SECONDS_MAX = 60.0
"""How long a page may take: the first one waits until a server that has just started has loaded
Feast, which takes five seconds, and half a minute on a machine that is busy."""

PAGES_WAITING_MAX = 32
"""Pages that one worker has under way: each takes some 20 ms, so whoever waits longest waits a second."""

PAGES_IDLE_SECONDS = 600.0
"""How long a page process is kept without a page being asked for: it holds 100 to 200 MB."""

PAGE_TEXT_CHARS_MAX = 20_000
"""Of one text on a page: descriptions and functions that people read are shorter."""

PAGE_NAME_CHARS_MAX = 200
"""Of a name on a page; the name itself, in links and code, stays whole."""

PAGE_SUMMARY_CHARS_MAX = 300
"""Of a description in a list, three lines or so; the object's own page has more of it."""

PAGE_ROWS_MAX = 100
"""Lines of one page of the catalogue: a few screens, in 20 ms."""

PAGE_FEATURES_MAX = 1_000
"""Features of one view or service on its page, and in code to copy."""

PAGE_QUERY_CHARS_MAX = 200
"""Of a search: nobody types more, and each word costs a look at every entry."""

LINEAGE_NODES_MAX = 400
"""Nodes of one picture: a hundred views with their sources and services; beyond it, what is nearest."""

CHARTS_KEPT_MAX = 256
"""Charts that a page process keeps drawn, some 20 KB each: drawing one takes 30 ms."""

FORM_BODY_BYTES_MAX = 128 * 1024
"""A form: the names of the most features that one lookup takes, and a key."""

LOGIN_BODY_BYTES_MAX = 8 * 1024
"""The form that logs a person in: a token, and the address of the page to go on with."""

FORM_FIELDS_MAX = 1_000
"""Fields of a form: a key of more columns than anybody fills in."""

LOGIN_SECONDS = 12 * 3_600
"""How long a login to the pages lasts: a working day. A token that is taken away ends it at once."""

API_ENTRIES_MAX = 1_000
"""Entries of one answer of the catalogue as JSON; `offset` gives those beyond it."""

PROFILES_KEPT_MAX = 64
"""Profiles that a page process keeps read: one of a hundred features takes half a megabyte."""

DRIFT_KEPT_SECONDS = 10.0
"""How old the list of drift reports may be that the first page shows: reading all of them takes a file a subject."""

REPORT_CHARTS_MAX = 200
"""Pictures in one report of monitoring, some 20 KB and 30 ms each; beyond them a feature that drifted has its table."""
