"""What is left out of "what stock passes, ours passes", and why. Each entry is checked.

A test listed here is run all the same. If it passes on ours, the run fails and says that the entry
must go. A key is a test's id, or its id without the parameters in brackets for all of them.

Almost all entries are tests that look into stock's own keys or attributes to see a behaviour. Where
ours has the behaviour too, the reason names the test that shows it.
"""

from __future__ import annotations

REDIS = "t/integration/test_redis.py::"
EXPIRATION = REDIS + "test_RedisQueueExpiration::"
BROKEN_LOOKUP = REDIS + "test_RedisRestoreBindingLookupFailure::"
HEALTH = REDIS + "test_RedisBrpopHealthCheck::"
PAUSE = "t/integration/test_redis_brpop_qos.py::"

LIST_TTL = (
    "reads the TTL of stock's list, named like the queue; ours keeps a queue under other keys. "
    "Shown by tests/kombu/test_expiry.py"
)
BINDING_SET = (
    "reads stock's set of bindings; ours is another key, kept with a version. "
    "Shown by tests/kombu/test_expiry.py"
)
UNACKED = "reads stock's `unacked` keys; a job that somebody holds is `claimed` here. "
LOOKUP = (
    "makes SMEMBERS fail in a requeue; ours looks up no binding then, as the job goes back to the "
    "queue that it came from. Shown by tests/kombu/test_exchanges.py"
)
IN_POLL = (
    "moves the clock for `_brpop_sent_at`, which belongs to BRPOP; ours looks for an overdue reply "
    "by `channel.waiter`. Shown by tests/kombu/test_silence.py"
)
PENDING = (
    "holds back the reply of a BRPOP by its socket; ours has no message in a reply that waits, it "
    "claims only what it may hold. Shown by tests/kombu/test_qos.py and test_cancel.py"
)
POLL_CONNECTION = (
    "breaks channel.client.connection, on which ours does not poll. "
    "Shown by tests/kombu/test_reconnect.py"
)

#: Package -> test id -> why ours does not pass it.
EXCLUSIONS: dict[str, dict[str, str]] = {
    "kombu": {
        REDIS + "test_event_loop_consumes_after_connection_reconnect[None-BRPOP]": POLL_CONNECTION,
        REDIS
        + "test_event_loop_consumes_after_connection_reconnect[connection1-BRPOP]": POLL_CONNECTION,
        REDIS + "test_RedisPublishBatch::test_retry_on_timeout_keeps_publication_immediate": (
            "expects no batch with retry_on_timeout, with which redis-py's client repeats what got "
            "no reply; ours does not send a batch through that client and never repeats one: who "
            "flushes it is told. Shown by tests/kombu/test_batch.py"
        ),
        EXPIRATION + "test_queue_expiration_set": LIST_TTL,
        EXPIRATION + "test_expiration_gets_reset_on_put": LIST_TTL,
        EXPIRATION + "test_expiration_gets_reset_on_get": LIST_TTL,
        EXPIRATION + "test_queue_expires_for_all_priorities": LIST_TTL,
        EXPIRATION + "test_binding_table_swept_after_consumer_stops": BINDING_SET,
        EXPIRATION + "test_binding_table_kept_while_consumer_is_paused": BINDING_SET,
        EXPIRATION + "test_binding_table_kept_while_drain_events_has_prefetch_full": BINDING_SET,
        EXPIRATION
        + "test_binding_table_shared_with_queue_without_expires_never_swept": BINDING_SET,
        EXPIRATION + "test_deleting_an_expiring_queue_removes_its_binding": BINDING_SET,
        EXPIRATION + "test_refresh_keeps_a_topic_binding_as_bound": BINDING_SET,
        REDIS + "test_RedisRestoreVisible::test_restore_visible_requeues_expired_unacked": (
            UNACKED + "It is taken back when its holder is dead, not when a time has passed"
        ),
        BROKEN_LOOKUP + "test_failed_requeue_keeps_message_unacked": LOOKUP,
        BROKEN_LOOKUP + "test_failed_restore_visible_keeps_message_unacked": LOOKUP,
        REDIS + "test_RedisRestoreAtShutdown::test_unacked_message_requeued_on_connection_close": (
            UNACKED + "Shown by tests/kombu/test_requeue.py"
        ),
        HEALTH + "test_live_connection_with_unread_reply_not_dropped": IN_POLL,
        HEALTH + "test_half_open_connection_dropped_and_consumption_resumes": IN_POLL,
        HEALTH + "test_half_open_connection_dropped_by_drain_events": IN_POLL,
        REDIS + "test_SentinelManagerClose::test_disconnect_pools_closes_both_managers": (
            "expects channel.client to make the pool of the polling connection; ours makes that "
            "pool when it polls first"
        ),
        PAUSE + "test_hub_pauses_pending_brpop_until_ack": PENDING,
        PAUSE + "test_drain_events_resumes_pending_brpop_without_resending": PENDING,
        PAUSE + "test_pending_message_survives_cancel_or_close": PENDING,
        PAUSE + "test_paused_channel_does_not_block_other_channels": PENDING,
    },
    "celery": {
        "t/integration/test_backend.py": "imports Azure's client, and tests only that backend",
    },
}

TASKS = "t/integration/test_tasks.py::test_task_redis_result_backend::"
BACKEND = "t/integration/test_redis_backend.py::"
SUBSCRIBED = (
    "expects a subscription when a task is sent; ours subscribes when somebody waits. "
    "Shown by tests/backend/test_results.py"
)
CONSUMER = (
    "reaches into stock's ResultConsumer and its lock. Waiting threads, greenlets and finalizers: "
    "tests/backend/test_results.py"
)
CHORD_KEYS = "reads stock's keys of a chord (.j, .t, .s, .d); ours are others. "

#: The same, where the result backend is ours.
BACKEND_EXCLUSIONS: dict[str, str] = {
    TASKS + "test_asyncresult_forget_cancels_subscription": SUBSCRIBED,
    TASKS + "test_asyncresult_get_cancels_subscription": SUBSCRIBED,
    BACKEND + "test_pubsub_subscribe_churn_while_draining": CONSUMER,
    BACKEND + "test_pubsub_reentrant_cancel_from_finalizer": CONSUMER,
    BACKEND + "test_chord_expires": CHORD_KEYS + "Shown by tests/backend/test_arrivals.py",
    BACKEND + "test_chord_part_return_records_each_header_task_once": (
        CHORD_KEYS + "Shown by tests/backend/test_arrivals.py"
    ),
    "t/integration/test_canvas.py::test_chord::test_chord_on_error": (
        CHORD_KEYS + "That errbacks are called: tests/backend/test_chords.py"
    ),
}


DELAYED = (
    "a task with a countdown waits in Redis; `delayed_delivery: False` gives what stock does. "
    "Documented in docs/howto/delayed-jobs.md, shown by tests/celery/test_eta.py. "
)

#: The same, where the broker is ours.
BROKER_EXCLUSIONS: dict[str, str] = {
    "t/integration/test_inspect.py::test_Inspect::test_scheduled": (
        DELAYED + "So no worker holds it, and `inspect scheduled` has nothing to show"
    ),
    "t/integration/test_canvas.py::test_chord::test_group_or_task_countdown_delays_header": (
        DELAYED + "It is delayed, and request.eta is None then: the header x-eta has it"
    ),
}


def excluded_tests(package: str, backend: str, broker: str = "phonon") -> dict[str, str]:
    """Test id -> why ours does not pass it, with a result backend and broker of these schemes."""
    found = dict(EXCLUSIONS[package])
    if package == "celery":
        found |= BACKEND_EXCLUSIONS if backend == "phonon" else {}
        found |= BROKER_EXCLUSIONS if broker == "phonon" else {}
    return found


#: Package -> test id -> how it was seen to fail now and then on stock as well.
KNOWN_FLAKY: dict[str, dict[str, str]] = {
    "kombu": {},
    "celery": {
        "t/integration/test_tasks.py::test_trace_log_arguments::test_task_failed": (
            "gives the worker 10 ms after the result to write its log; failed once on stock, too"
        ),
        "t/integration/test_tasks.py::test_trace_log_arguments::test_task_success": (
            "gives the worker 10 ms after the result to write its log, as test_task_failed"
        ),
        "t/integration/test_tasks.py::test_task_replacement::test_replaced_task_nesting_level_0": (
            "sets its result to False after it has sent the task, so a worker that is quick to "
            "receive it is overwritten: about 12 % of 240 runs on stock, 14 % on ours"
        ),
    },
}


def reason(table: dict[str, str], test: str) -> str | None:
    """Return the reason that ``table`` gives for ``test``, or None if it is not listed."""
    return table.get(test) or table.get(test.partition("[")[0])
