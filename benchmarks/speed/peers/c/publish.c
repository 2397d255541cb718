/* publish URL EXCHANGE KEY COUNT WINDOW BODYFILE [WARMUP]
 *
 * Publishes COUNT persistent events, at most WINDOW of them unconfirmed (1: each waits for its confirm). Prints one
 * line of JSON: events, seconds, CPU seconds of this process and of the broker, from the event after the first WARMUP
 * (a tenth, 100 at most, unless given; none when WINDOW is above 1) to the last confirm. For WINDOW 1 also percentiles
 * of the time from publish to confirm, in microseconds.
 */

#define _GNU_SOURCE
#include "common.h"

static amqp_bytes_t read_file(const char *name) {
    FILE *file = fopen(name, "rb");
    if (!file) fail("cannot read %s", name);
    amqp_bytes_t body = amqp_bytes_malloc(1 << 20);
    body.len = fread(body.bytes, 1, body.len, file);
    fclose(file);
    return body;
}

/* Waits for one frame; returns the highest tag that is confirmed. */
static uint64_t wait_for_confirm(amqp_connection_state_t connection) {
    amqp_frame_t frame;
    amqp_maybe_release_buffers(connection);
    int status = amqp_simple_wait_frame(connection, &frame);
    if (status) fail("waiting for a confirm: %s", amqp_error_string2(status));
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
        fail("no confirm but method %#x", frame.frame_type == AMQP_FRAME_METHOD ? frame.payload.method.id : 0);
    return ((amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag;
}

int main(int argc, char **argv) {
    if (argc < 7 || argc > 8) fail("publish URL EXCHANGE KEY COUNT WINDOW BODYFILE [WARMUP]");
    long count = whole_number(argv[4], "COUNT"), window = whole_number(argv[5], "WINDOW");
    long warmup = argc > 7 ? whole_number(argv[7], "WARMUP") : window > 1 ? 0 : count / 10 < 100 ? count / 10 : 100;
    if (window < 1 || warmup >= count) fail("WINDOW must be 1 or more, WARMUP less than COUNT");
    amqp_bytes_t body = read_file(argv[6]);
    amqp_bytes_t exchange = amqp_cstring_bytes(argv[2]), key = amqp_cstring_bytes(argv[3]);
    double *latencies = malloc((size_t)count * sizeof *latencies);

    amqp_connection_state_t connection = connect_to(argv[1]);
    amqp_confirm_select(connection, CHANNEL);
    expect(amqp_get_rpc_reply(connection), "confirm.select");
    amqp_basic_properties_t properties = {
        ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
        .content_type = amqp_cstring_bytes("application/json"),
        .delivery_mode = AMQP_DELIVERY_PERSISTENT,
    };
    if (getenv("BENCH_OUR_PROPERTIES")) {
        properties._flags |= AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
                             AMQP_BASIC_TYPE_FLAG;
        properties.content_encoding = amqp_cstring_bytes("utf-8");
        properties.message_id = amqp_cstring_bytes("7c9e6679-7425-40de-944b-e07fc1f90ae7");
        properties.timestamp = (uint64_t)time(NULL);
        properties.type = key;
    }

    struct clocks began = read_clocks();
    long confirmed = 0;
    for (long published = 0; published < count;) {
        double before = window == 1 ? seconds_of(CLOCK_MONOTONIC) : 0;
        if (amqp_basic_publish(connection, CHANNEL, exchange, key, 0, 0, &properties, body)) fail("basic.publish");
        published++;
        /* Confirms of a durable queue are in order and cumulative, so that the highest tag tells all. */
        while (published - confirmed >= window || (published == count && confirmed < count)) {
            long tag = (long)wait_for_confirm(connection);
            if (tag > confirmed) confirmed = tag;
        }
        if (window == 1) latencies[published - 1] = (seconds_of(CLOCK_MONOTONIC) - before) * 1e6;
        if (published == warmup) began = read_clocks();
    }
    struct clocks ended = read_clocks();
    report(count - warmup, began, ended, latencies + warmup, window == 1 ? count - warmup : 0);

    expect(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
    return 0;
}
