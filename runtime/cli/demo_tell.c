/*
 * demo_tell.c - what the child of `abode demo` says to its parent: acknowledgements with running
 * totals, and, at the end, where everything lives. One whole message a write.
 */
#include "demo.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static int message_send(const struct demo_message *message)
{
    const unsigned char *bytes = (const unsigned char *)message;
    size_t sent = 0;
    while (sent < sizeof(*message)) {
        const ssize_t count = write(DEMO_MESSAGE_FD, bytes + sent, sizeof(*message) - sent);
        if (count < 0 && errno != EINTR) {
            return -errno;
        }
        sent += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

int host_tell(const struct host *host, enum demo_message_type type, uint32_t conversation,
              int64_t value)
{
    struct demo_message message;
    memset(&message, 0, sizeof(message));
    message.type = type;
    message.conversation = conversation;
    message.value = value;
    if (conversation < host->workload.conversation_count) {
        message.turns = host->sessions[conversation].turns_done;
    }
    return message_send(&message);
}

int host_tell_totals(struct host *host, enum demo_message_type type, uint32_t conversation,
                     int64_t value)
{
    struct demo_message message;
    memset(&message, 0, sizeof(message));
    host->totals.cpu_ns = cli_cpu_now_ns();
    host->totals.stats.struct_size = sizeof(host->totals.stats);
    const int result = abode_stats_get(host->runtime, &host->totals.stats);
    if (result < 0) {
        return result;
    }
    message.type = type;
    message.conversation = conversation;
    message.value = value;
    message.totals = host->totals;
    if (conversation < host->workload.conversation_count) {
        message.turns = host->sessions[conversation].turns_done;
    }
    return message_send(&message);
}

static int support_tell(struct host *host)
{
    struct demo_message message;
    memset(&message, 0, sizeof(message));
    message.type = DEMO_SUPPORT;
    const int result = cli_support_lines(host->runtime, message.support);
    return result < 0 ? result : message_send(&message);
}

static int machine_tell(struct host *host)
{
    struct demo_message message;
    int result = 0;
    for (uint32_t i = 0; i < DEMO_NODES_MAX && result >= 0; i++) {
        memset(&message, 0, sizeof(message));
        message.type = DEMO_NODE;
        message.index = i;
        message.node.struct_size = sizeof(message.node);
        result = abode_machine_node_get(host->runtime, i, &message.node);
        result = result >= 0 ? message_send(&message) : result;
    }
    if (result < 0 && result != -ENOENT) {
        return result;
    }
    result = 0;
    for (uint32_t i = 0; i < DEMO_DEVICES_MAX && result >= 0; i++) {
        memset(&message, 0, sizeof(message));
        message.type = DEMO_DEVICE;
        message.index = i;
        message.device.struct_size = sizeof(message.device);
        result = abode_machine_device_get(host->runtime, i, &message.device);
        result = result >= 0 ? message_send(&message) : result;
    }
    return result == -ENOENT || result >= 0 ? support_tell(host) : result;
}

static int place_tell(struct host *host, uint32_t conversation)
{
    struct demo_message message;
    struct abode_placement placement = {.struct_size = sizeof(placement)};
    memset(&message, 0, sizeof(message));
    message.type = DEMO_PLACE;
    message.conversation = conversation;
    message.turns = host->sessions[conversation].turns_done;
    message.place.info.struct_size = sizeof(message.place.info);
    const struct abode_session session = host->sessions[conversation].handle;
    int result = abode_session_stat(host->runtime, session, &message.place.info);
    if (result >= 0) {
        result = abode_session_placement(host->runtime, session, &placement);
    }
    if (result < 0) {
        return result;
    }
    message.place.home_node = placement.home_node;
    message.place.place_count = placement.place_count;
    for (uint32_t i = 0; i < placement.place_count && i < DEMO_PLACES_MAX; i++) {
        message.place.places[i] = placement.places[i];
    }
    return message_send(&message);
}

int host_tell_places(struct host *host)
{
    int result = machine_tell(host);
    for (uint32_t i = 0; i < host->workload.conversation_count && result >= 0; i++) {
        result = host->sessions[i].exists ? place_tell(host, i) : 0;
    }
    return result;
}
