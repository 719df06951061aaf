"""How calls travel."""

import json

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Largest message in either direction; the server's own limits are tighter."""

# Where a name has several addresses, calls go to each of them in turn. No request has effects beyond its
# response, so every one may be sent again.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "smartedit.v1.SmartEditService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def channel_options() -> list[tuple[str, str | int]]:
    """Give the channel's settings: message limits, retries and keepalive."""
    return [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        # A request that does not fit this buffer (256 KiB unless set) is never retried.
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        # Without pings, a connection that died silently is only noticed by a deadline.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
