/* What both programs need of librabbitmq: a connection, clocks, and one way to fail. */

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHANNEL 1

static void fail(const char *what, ...) {
    va_list values;
    va_start(values, what);
    vfprintf(stderr, what, values);
    va_end(values);
    fputc('\n', stderr);
    exit(1);
}

static void expect(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
        fail("%s: %s", what, amqp_error_string2(reply.library_error));
    if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
        amqp_channel_close_t *closed = reply.reply.decoded;
        fail("%s: %.*s", what, (int)closed->reply_text.len, (char *)closed->reply_text.bytes);
    }
    fail("%s: the broker closed the connection", what);
}

static amqp_connection_state_t connect_to(char *url) {
    struct amqp_connection_info info;
    amqp_default_connection_info(&info);
    if (amqp_parse_url(url, &info) != AMQP_STATUS_OK || info.ssl) fail("not an amqp:// URL: %s", url);
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket || amqp_socket_open(socket, info.host, info.port)) fail("no connection to %s:%d", info.host, info.port);
    /* Heartbeat 0: nothing of ours would answer while a run lasts, and no run lasts long. */
    expect(amqp_login(connection, info.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password), "login");
    amqp_channel_open(connection, CHANNEL);
    expect(amqp_get_rpc_reply(connection), "channel.open");
    return connection;
}

static double seconds_of(clockid_t clock) {
    struct timespec now;
    if (clock_gettime(clock, &now)) fail("clock_gettime");
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Wall, this process's CPU and that of the process in BENCH_BROKER_PID (0 when there is none), in seconds. */
struct clocks {
    double wall, cpu, broker;
};

static struct clocks read_clocks(void) {
    struct clocks clocks = {seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID), 0};
    const char *pid = getenv("BENCH_BROKER_PID");
    /* Linux: the CPU clock of a whole process, as clock_getcpuclockid(3) computes it. */
    if (pid && *pid) clocks.broker = seconds_of((clockid_t)((~(unsigned)atoi(pid) << 3) | 2));
    return clocks;
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* As benchmarks.speed.measuring.percentile: the value that so much of the sorted ones do not exceed. */
static double percentile(const double *sorted, long count, double share) {
    long index = (long)(share * (double)count);
    return sorted[index < count ? index : count - 1];
}

/* One line of JSON: what happened between the two, and the percentiles of `microseconds` if there are any. */
static void report(long events, struct clocks began, struct clocks ended, double *microseconds, long count) {
    printf("{\"events\": %ld, \"seconds\": %.9f, \"cpu_seconds\": %.9f, \"broker_cpu_seconds\": %.9f", events,
           ended.wall - began.wall, ended.cpu - began.cpu, ended.broker - began.broker);
    if (count > 0) {
        qsort(microseconds, (size_t)count, sizeof *microseconds, by_value);
        printf(", \"p50_us\": %.3f, \"p90_us\": %.3f, \"p99_us\": %.3f", percentile(microseconds, count, 0.50),
               percentile(microseconds, count, 0.90), percentile(microseconds, count, 0.99));
    }
    printf("}\n");
    fflush(stdout);
}

static long whole_number(const char *text, const char *what) {
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 0) fail("%s must be a whole number, not %s", what, text);
    return value;
}
