/* consume URL QUEUE COUNT PREFETCH ACK_EVERY [WARMUP [latency]]
 *
 * Takes COUNT events from QUEUE and acks each ACK_EVERY of them with one basic.ack (1: each by itself). Does not parse
 * their JSON: it stands for what the protocol costs. Prints one line of JSON: events, seconds, CPU seconds of this
 * process and of the broker, from the event after the first WARMUP (a tenth, 500 at most, unless given) to the last.
 * With `latency` also percentiles of the time from "sent_ns" in the body (CLOCK_REALTIME) to here, in microseconds.
 */

#define _GNU_SOURCE
#include "common.h"

static double age_in_microseconds(amqp_bytes_t body) {
    static const char key[] = "\"sent_ns\": ";
    char *found = memmem(body.bytes, body.len, key, sizeof key - 1);
    if (!found) fail("no sent_ns in the body");
    char number[32] = {0};
    size_t left = body.len - (size_t)(found + sizeof key - 1 - (char *)body.bytes);
    memcpy(number, found + sizeof key - 1, left < sizeof number - 1 ? left : sizeof number - 1);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)(now.tv_sec * 1000000000LL + now.tv_nsec - strtoll(number, NULL, 10)) / 1e3;
}

int main(int argc, char **argv) {
    if (argc < 6 || argc > 8) fail("consume URL QUEUE COUNT PREFETCH ACK_EVERY [WARMUP [latency]]");
    long count = whole_number(argv[3], "COUNT"), prefetch = whole_number(argv[4], "PREFETCH");
    long ack_every = whole_number(argv[5], "ACK_EVERY");
    long warmup = argc > 6 ? whole_number(argv[6], "WARMUP") : (count / 10 < 500 ? count / 10 : 500);
    double *ages = argc > 7 ? malloc((size_t)count * sizeof *ages) : NULL;
    if (ack_every < 1 || warmup >= count) fail("ACK_EVERY must be 1 or more, WARMUP less than COUNT");
    if (ack_every > prefetch) fail("ACK_EVERY above PREFETCH would wait for ever");

    amqp_connection_state_t connection = connect_to(argv[1]);
    amqp_basic_qos(connection, CHANNEL, 0, (uint16_t)prefetch, 0);
    expect(amqp_get_rpc_reply(connection), "basic.qos");
    amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(argv[2]), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect(amqp_get_rpc_reply(connection), "basic.consume");

    struct clocks began = read_clocks();
    for (long taken = 1; taken <= count; taken++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        expect(amqp_consume_message(connection, &envelope, NULL, 0), "consume");
        if (ages) ages[taken - 1] = age_in_microseconds(envelope.message.body);
        if (taken % ack_every == 0 || taken == count)
            if (amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, ack_every > 1)) fail("basic.ack");
        amqp_destroy_envelope(&envelope);
        if (taken == warmup) began = read_clocks();
    }
    struct clocks ended = read_clocks();
    report(count - warmup, began, ended, ages ? ages + warmup : NULL, ages ? count - warmup : 0);

    /* A quorum queue loses acks that are under way when their channel is closed. */
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    expect(amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS), "channel.close");
    expect(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
    return 0;
}
