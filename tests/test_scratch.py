from pathlib import Path
from tests.redis_servers import private_redis
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Knowledge
from store.online.stream_log import *
from store.online.stream_owners import *
from store.kernel.log_entries import *
def test_it(server):
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "x"))
    k = Knowledge("shop")
    log = session.hold(open_log(k, 4, "abc"))
    e = encode_events(Events("s", ("user",), True, True, b"12345678", [[1,2],[3,4]]))
    got = session.hold(append(log, {1: PartitionAppend([LoggedEntry(e,2)]), 2: PartitionAppend([LoggedEntry(e,2)])}, 1000))
    print(got)
    print(session.hold(append(log, {1: PartitionAppend([LoggedEntry(e,2)]), 2: PartitionAppend([LoggedEntry(e,2)])}, 1000, push=PushName(b"abc",b"d"))))
    print(session.hold(append(log, {1: PartitionAppend([LoggedEntry(e,2)]), 2: PartitionAppend([LoggedEntry(e,2)])}, 1000, push=PushName(b"abc",b"d"))))
    print(session.hold(draw_line(log, "v", 500)))
    print(session.hold(read_entries(log, {1:0,2:1001}, 10)))
    print(session.hold(read_states(log, [1,2])))
    session.hold(wait_entries(log, {1:0,2:1001}, 10))
    o = session.hold(own("shop", "1", "w", 5000)); print(o)
    print(session.hold(own("shop", "1", "w", 5000)), session.hold(keep("shop","1",o,0)))
    session.hold(advance(log, 1, o.token, {"applied": 1001,"done_bytes":30}, 1001))
    print(session.hold(read_states(log, [1])), session.hold(read_entries(log, {1:0,2:1001}, 10)))
    print(session.hold(show_alive("shop","a|1",1000)), session.hold(show_alive("shop","b",1000)))
