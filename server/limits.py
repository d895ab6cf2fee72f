"""Bounds that only the HTTP shell has; those that the store enforces as well are in `store.limits`."""

SMALL_BODY_BYTES_MAX = 64 * 1024
"""A materialization request: two instants and a list of view names."""

HISTORICAL_JSON_BODY_BYTES_MAX = 32 * 1024 * 1024
"""Entity rows as JSON: parsing 32 MB holds the interpreter for about 0.2 s; more rows come as Arrow."""

HISTORICAL_JSON_ROWS_MAX = 100_000
"""Rows answered as JSON: with 30 features about 60 MB of text built in memory; more rows go as Arrow."""

HISTORICAL_DECODED_BYTES_MAX = 1024 * 1024 * 1024
"""Decoded entity rows of one retrieval: 10 M rows of about 100 bytes, two retrievals at once in 2 GB."""

HISTORICAL_BATCH_ROWS = 65_536
"""Rows of one record batch of an Arrow answer: some MB, so that a slow reader holds little beyond the table."""

BODY_SECONDS_MAX = 60.0
"""How long a client may take to send its body: 256 MB in a minute is 34 Mbit/s; a trickle holds a slot no longer."""

MATERIALIZE_CONCURRENT_MAX = 2
"""Materializations at once in one worker: each wants a core, and a lookup wants the other."""

ASYNC_REFUSAL_SECONDS = 1.0
"""How long a background materialization may take to fail at once (unknown view, lease held) before 202 is answered."""

BUSY_RETRY_SECONDS = 5
"""What a full server tells a client to wait: about one retrieval of 1 M rows."""

UNAVAILABLE_RETRY_SECONDS = 1
"""What a client is told to wait when Redis or the registry is away: failover and reload take about a second."""

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
