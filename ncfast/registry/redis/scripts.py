"""What the registry does inside Redis: one script for each transition, so that none is ever half done.

Keys all carry the hash tag `{cluster}`: in Redis Cluster they lie in one slot, and a script may use them together.

    agents     hash    key -> record            who owns the agent now
    epochs     hash    key -> epoch             the highest epoch ever granted, also of agents that are gone
    changes    zset    key at version           which entry changed when; those that are gone too, for a while
    meta       hash    generation, version      `generation` is new when the data is: versions of another one mean
    nothing replicas   hash    replica_id -> record     hubs
    leases     zset    replica_id at ms         when a hub counts as gone, by the server's clock
    gone       zset    key at ms                agents without an entry that `changes` still tells of
    idle       zset    key at ms                agents without an entry whose epoch is still remembered
    locks      hash    key -> record            the last word about an agent that is locked out, or was
    claim:ID   string  epoch, version           what a claim was granted, so that its retry is granted the same

Epochs are compared and passed as decimal text, for a number of Lua is exact up to 2**53 only. An agent that is not
known here starts at the server's clock in microseconds: above all that was granted before the data was lost, unless
that clock went back. And the claim brings what agent and hub remember. Where that is above what Redis knows, something
was lost, and they need not remember the last that was granted: so `MARGIN` is added, and the clock is the least.
A stored epoch that is none, or none that is possible (`ncfast.core.epochs`), counts as absent, and so does the record
that names it: whoever has poisoned them, the next claim or assertion mends them.

Each change is published with its version, so that a hub sees by a gap that it has missed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1

from ncfast.core.epochs import BEGINNING, LARGEST, REACH

KEYS = ("agents", "epochs", "changes", "meta", "replicas", "leases", "gone", "idle", "locks")
CLAIM_TTL_MS = 60_000  # far beyond the last retry of a claim
MARGIN = 1000  # epochs: far more than an agent is granted in a loss, and a millisecond of the clock
PAGE = 250  # entries in one answer of `BEAT`

PRELUDE = f"""\
local agents, epochs, changes, meta, replicas, leases, gone, idle, locks = unpack(KEYS)
local channel, token = ARGV[1], ARGV[2]

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now()
  return math.floor(micros() / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

local function above(one, other)
  if #one ~= #other then
    return #one > #other
  end
  return one > other
end

local function sound(epoch)
  local decimal = epoch and #epoch <= 16 and (epoch == '0' or string.match(epoch, '^[1-9]%d*$'))
  if decimal and tonumber(epoch) <= math.min(math.max(micros(), {BEGINNING}) + {2 * REACH}, {LARGEST}) then
    return epoch
  end
end

local function generation()
  redis.call('HSETNX', meta, 'generation', token)
  return redis.call('HGET', meta, 'generation')
end

local function remember(key, epoch, margin)
  redis.call('HSET', epochs, key, epoch)
  redis.call('HINCRBY', epochs, key, margin)
  local least = text(micros())
  if above(least, redis.call('HGET', epochs, key)) then
    redis.call('HSET', epochs, key, least)
  end
  return redis.call('HGET', epochs, key)
end

local function change(key, record)
  local version = text(redis.call('HINCRBY', meta, 'version', 1))
  redis.call('ZADD', changes, version, key)
  redis.call('PUBLISH', channel, 'agent\\n' .. generation() .. '\\n' .. version .. '\\n' .. key .. '\\n' .. record)
  return version
end

local function put(key, record)
  redis.call('HSET', agents, key, record)
  redis.call('ZREM', gone, key)
  redis.call('ZREM', idle, key)
  return change(key, record)
end

local function drop(key)
  redis.call('HDEL', agents, key)
  redis.call('ZADD', gone, text(now()), key)
  return change(key, '')
end

local function owner_of(record)
  return string.match(record, '^([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n')
end

local function owns(key, owner, process, epoch)
  local record = redis.call('HGET', agents, key)
  if not record then
    return false
  end
  local its_epoch, its_owner, its_process = owner_of(record)
  return its_epoch == epoch and its_owner == owner and its_process == process
end

local function process_of(record)
  return string.match(record, '^([^\\n]*)\\n(%d+)\\n')
end

local function hubs_changed()
  redis.call('PUBLISH', channel, 'replicas\\n' .. generation())
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """`arguments` follow channel and token, which every script gets."""

    name: str
    arguments: tuple[str, ...]
    body: str

    @property
    def text(self) -> str:
        return f"{PRELUDE}\n{self.body}"


# -> {epoch, version, generation}. The newest claim wins, whoever owned the agent.
CLAIM = Script(
    "claim",
    ("key", "owner", "process", "at_least", "body", "ttl", "margin"),
    """\
local key, owner, process, at_least, body, ttl, margin = unpack(ARGV, 3)
local granted = redis.call('GET', KEYS[10])
if granted then
  local epoch, version = string.match(granted, '^(%d+) (%d+)$')
  return {epoch, version, generation()}
end
local floor = sound(redis.call('HGET', epochs, key)) or text(micros())
if above(at_least, floor) then
  floor = remember(key, at_least, margin)
end
redis.call('HSET', epochs, key, floor)
redis.call('HINCRBY', epochs, key, 1)
local epoch = redis.call('HGET', epochs, key)
local version = put(key, epoch .. '\\n' .. owner .. '\\n' .. process .. '\\n' .. body)
redis.call('SET', KEYS[10], epoch .. ' ' .. version, 'PX', ttl)
return {epoch, version, generation()}
""",
)

# -> {1, version, generation} if the entry is now as given, {0, a higher epoch, record} if a newer claim, or another's,
# stands. Version 0: nothing had to change.
ASSERT = Script(
    "assert",
    ("key", "owner", "process", "epoch", "body", "margin"),
    """\
local key, owner, process, epoch, body, margin = unpack(ARGV, 3)
local stored = sound(redis.call('HGET', epochs, key))
local current = redis.call('HGET', agents, key)
local record = epoch .. '\\n' .. owner .. '\\n' .. process .. '\\n' .. body
if current == record then
  return {1, '0', generation()}
end
local its_epoch, its_owner, its_process = owner_of(current or '')
if sound(its_epoch) then
  if above(its_epoch, epoch) or (its_epoch == epoch and (its_owner ~= owner or its_process ~= process)) then
    return {0, its_epoch, current}
  end
elseif stored and above(stored, epoch) then
  return {0, stored, ''}
end
if not stored or above(epoch, stored) then
  remember(key, epoch, margin)
end
return {1, put(key, record), generation()}
""",
)

# -> 1 if the entry went, 0 if it is another's by now.
RELEASE = Script(
    "release",
    ("key", "owner", "process", "epoch"),
    """\
local key, owner, process, epoch = unpack(ARGV, 3)
if not owns(key, owner, process, epoch) then
  return 0
end
drop(key)
return 1
""",
)

# As RELEASE, by anybody, of an entry whose owner is not there any more.
PRUNE_AGENT = Script(
    "prune_agent",
    ("key", "owner", "process", "epoch"),
    """\
local key, owner, process, epoch = unpack(ARGV, 3)
if not owns(key, owner, process, epoch) then
  return 0
end
local presence = redis.call('HGET', replicas, owner)
if presence and process_of(presence) == process then
  return 0
end
drop(key)
return 1
""",
)

# -> record of an agent, or an empty string.
OWNER = Script(
    "owner",
    ("key",),
    """\
return redis.call('HGET', agents, ARGV[3]) or ''
""",
)

# Renews a replica's lease and says what changed since `version` of `generation`, or everything if that is of no use.
# -> {state, now, born, generation, whole, version, {replica_id, record, lease, ...}, {key, version, record, ...}}
# whole: 1 if this begins with the first change there is, in place of what was asked for.
# state: 1 renewed; 2 renewed, and was not there before; 0 another process of that name has come after us, and its lease
# holds. `born` is when the process was first seen, 0 for the first time.
BEAT = Script(
    "beat",
    ("replica", "process", "born", "body", "lease", "generation", "version", "page"),
    """\
local replica, process, born, body, lease, known, since, page = unpack(ARGV, 3)
local time = now()
local current = redis.call('HGET', replicas, replica)
local expired = time > tonumber(redis.call('ZSCORE', leases, replica) or 0)
local its_process, its_birth
if current then
  its_process, its_birth = process_of(current)
end
local state = 1
if its_process ~= process then
  state = 2
  if its_process and born ~= '0' and not expired then
    if above(its_birth, born) or (its_birth == born and its_process > process) then
      state = 0
    end
  end
end
if born == '0' then
  born = text(time)
  if its_process and not above(born, its_birth) then
    born = text(its_birth + 1)
  end
end
if state > 0 then
  local record = process .. '\\n' .. born .. '\\n' .. body
  redis.call('HSET', replicas, replica, record)
  redis.call('ZADD', leases, text(time + lease), replica)
  if expired or current ~= record then
    hubs_changed()
  end
end
local generation = generation()
local version = redis.call('HGET', meta, 'version') or '0'
local whole = 0
if known ~= generation or above(since, version) then
  whole = 1
  since = '0'
end
local hubs = {}
local all = redis.call('HGETALL', replicas)
for i = 1, #all, 2 do
  hubs[#hubs + 1] = all[i]
  hubs[#hubs + 1] = all[i + 1]
  hubs[#hubs + 1] = text(tonumber(redis.call('ZSCORE', leases, all[i]) or 0))
end
local news = {}
local changed = redis.call('ZRANGEBYSCORE', changes, '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, page)
for i = 1, #changed, 2 do
  news[#news + 1] = changed[i]
  news[#news + 1] = text(tonumber(changed[i + 1]))
  news[#news + 1] = redis.call('HGET', agents, changed[i]) or ''
end
return {state, text(time), born, generation, whole, version, hubs, news}
""",
)

# -> 1 if the presence went, 0 if it is another process's.
LEAVE = Script(
    "leave",
    ("replica", "process"),
    """\
local replica, process = unpack(ARGV, 3)
local current = redis.call('HGET', replicas, replica)
if not current or process_of(current) ~= process then
  return 0
end
redis.call('HDEL', replicas, replica)
redis.call('ZREM', leases, replica)
hubs_changed()
return 1
""",
)

# As LEAVE, by anybody, if the lease is still the one that was seen, and has ended.
PRUNE_REPLICA = Script(
    "prune_replica",
    ("replica", "process", "lease"),
    """\
local replica, process, lease = unpack(ARGV, 3)
local current = redis.call('HGET', replicas, replica)
if not current or process_of(current) ~= process then
  return 0
end
local ends = text(tonumber(redis.call('ZSCORE', leases, replica) or 0))
if ends ~= lease or now() <= tonumber(ends) then
  return 0
end
redis.call('HDEL', replicas, replica)
redis.call('ZREM', leases, replica)
hubs_changed()
return 1
""",
)

# -> {entries that `changes` no longer tells of, epochs that are no longer remembered}; at most `page` of each.
TIDY = Script(
    "tidy",
    ("tell", "remember", "page"),
    """\
local tell, remember, page = unpack(ARGV, 3)
local time = now()
local old = redis.call('ZRANGEBYSCORE', gone, '-inf', text(time - tell), 'LIMIT', 0, page)
for _, key in ipairs(old) do
  redis.call('ZREM', gone, key)
  redis.call('ZREM', changes, key)
  redis.call('ZADD', idle, text(time), key)
end
local forgotten = redis.call('ZRANGEBYSCORE', idle, '-inf', text(time - remember), 'LIMIT', 0, page)
for _, key in ipairs(forgotten) do
  redis.call('ZREM', idle, key)
  redis.call('HDEL', epochs, key)
end
return {#old, #forgotten}
""",
)

# -> 1 if this is the last word about the agent now, 0 if a later one stands.
LOCK = Script(
    "lock",
    ("key", "stamp", "body"),
    """\
local key, stamp, body = unpack(ARGV, 3)
local current = redis.call('HGET', locks, key)
local its_stamp = current and string.match(current, '^(%d+)\\n')
if its_stamp and not above(stamp, its_stamp) then
  return 0
end
redis.call('HSET', locks, key, stamp .. '\\n' .. body)
redis.call('PUBLISH', channel, 'locks\\n' .. generation())
return 1
""",
)

# -> {key, record, ...} of all words about locks.
LOCKS = Script(
    "locks",
    (),
    """\
return redis.call('HGETALL', locks)
""",
)

# -> 1 if this very word went, which is over.
FORGET_LOCK = Script(
    "forget_lock",
    ("key", "record"),
    """\
local key, record = unpack(ARGV, 3)
if redis.call('HGET', locks, key) ~= record then
  return 0
end
return redis.call('HDEL', locks, key)
""",
)

# -> 1, or the first error. Every command that the others call, on a key such as a claim has, which goes by itself: an
# ACL that lacks one says so before it is needed. Hubs pass over a notice of this kind.
RIGHTS = Script(
    "rights",
    (),
    """\
local scratch, fault = KEYS[10], nil
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    fault = fault or reply
  end
end
try('TIME')
try('HSETNX', scratch, 'a', '1')
try('HSET', scratch, 'a', '1')
try('HINCRBY', scratch, 'a', 1)
try('HGET', scratch, 'a')
try('HGETALL', scratch)
try('HDEL', scratch, 'a')
try('ZADD', scratch, 1, 'a')
try('ZSCORE', scratch, 'a')
try('ZRANGEBYSCORE', scratch, '-inf', '+inf')
try('ZREM', scratch, 'a')
try('SET', scratch, '1', 'PX', 1000)
try('GET', scratch)
try('PUBLISH', channel, 'rights')
return fault or 1
""",
)

SCRIPTS = (
    CLAIM,
    ASSERT,
    RELEASE,
    PRUNE_AGENT,
    OWNER,
    BEAT,
    LEAVE,
    PRUNE_REPLICA,
    TIDY,
    LOCK,
    LOCKS,
    FORGET_LOCK,
    RIGHTS,
)
SHA = {script.name: sha1(script.text.encode()).hexdigest() for script in SCRIPTS}  # what EVALSHA calls a script


class KeySpace:
    """The names of one cluster's keys and of its channel."""

    def __init__(self, cluster: str) -> None:
        self.prefix = f"ncfast:{{{cluster}}}:"
        self.keys = tuple(self.prefix + name for name in KEYS)
        self.channel = self.prefix + "notices"

    def claim(self, request: str) -> str:
        return f"{self.prefix}claim:{request}"
