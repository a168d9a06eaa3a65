"""The fields that a log line may have, by how they are shown."""

MAX_TEXT = 256  # characters of a value
MAX_ITEMS = 256  # entries of a list or mapping, such as the listeners of `hub_ready`

ADDRESS_FIELDS = frozenset({"client", "remote", "peer", "source"})
IDENTITY_FIELDS = frozenset({"agent", "agent_id", "sub"})
URL_FIELDS = frozenset({"hub", "url", "proxy"})  # shown without user, password, query
FIELDS = (
    ADDRESS_FIELDS
    | IDENTITY_FIELDS
    | URL_FIELDS
    | frozenset(
        # process and configuration
        "version python pid state mode role replica_id transport signal timeout_sec uptime_sec "
        "file line key keys changed refused ok status ready reasons "
        # edges and listeners
        "edge admin unix changes tls listeners listener bind method http_status size limit used backlog held active "
        "count total "
        # tunnels
        "epoch session previous_epoch connectors connector tenant link code rtt_ms features draining "
        "attempt delay_sec host share to kept_sec connected_sec expires_in_sec target healthy lost detached "
        "queued_frames inflight_bytes owner software added withdrawn refresh standing until replica agents outage_ms "
        # the mesh
        "carrier direction newest relayed server "
        # flows
        "cid path bytes_in bytes_out duration duration_sec open_ms held_ms resumes retries flows reason "
        "flows_opened flows_closed handovers pause_ms "
        # upgrades
        "passed result longest_pause_sec "
        # faults; detail, problems, expected and got are our own words for people, not the text of a parser's exception,
        # nor what a target said
        "detail problems expected got error trace task library text lag_ms frame_type security".split()
    )
)
