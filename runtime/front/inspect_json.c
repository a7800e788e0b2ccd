/*
 * inspect_json.c - abode_inspect: the runtime as JSON lines, one object a line, for programs and people.
 *
 * Kinds, in order: machine node, device, support, model, session, statistics. A session's line is
 * made from public calls, one session at a time, so that no lock is held while the host writes.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/num.h"
#include "front/front.h"

#define LINE_MAX_BYTES 16384

struct line {
    char text[LINE_MAX_BYTES];
    size_t size;
};

static void add(struct line *line, const char *format, ...) AB_PRINTF(2, 3);
static void add(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int size =
        vsnprintf(line->text + line->size, sizeof(line->text) - line->size, format, arguments);
    va_end(arguments);
    if (size > 0) {
        line->size = AB_MIN(line->size + (size_t)size, sizeof(line->text) - 1);
    }
}

/* Bytes of the UTF-8 character at `c`, 0: it is none. Ends at the text's zero. */
static int character_bytes(const unsigned char *c)
{
    int count = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
    for (int i = 1; i < count; i++) {
        if ((c[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    const bool overlong = (c[0] == 0xe0 && c[1] < 0xa0) || (c[0] == 0xf0 && c[1] < 0x90);
    const bool surrogate = c[0] == 0xed && c[1] >= 0xa0;
    const bool beyond = c[0] > 0xf4 || (c[0] == 0xf4 && c[1] >= 0x90);
    return count > 2 && (overlong || surrogate || beyond) ? 0 : count;
}

/* A path may hold any bytes, JSON may not. */
static void add_text(struct line *line, const char *name, const char *text)
{
    add(line, "\"%s\":\"", name);
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0';) {
        const int count = character_bytes(c);
        if (*c == '"' || *c == '\\') {
            add(line, "\\%c", *c);
        } else if (*c < 0x20) {
            add(line, "\\u%04x", *c);
        } else if (count == 0) {
            add(line, "\\ufffd");
        } else {
            add(line, "%.*s", count, (const char *)c);
        }
        c += count == 0 ? 1 : count;
    }
    add(line, "\"");
}

static void add_hex(struct line *line, const char *name, const uint8_t *bytes, size_t count)
{
    add(line, "\"%s\":\"", name);
    for (size_t i = 0; i < count; i++) {
        add(line, "%02x", bytes[i]);
    }
    add(line, "\"");
}

struct sink {
    int (*write)(void *context, const char *text, size_t size);
    void *context;
    struct line line;
};

static int flush(struct sink *sink)
{
    add(&sink->line, "\n");
    int status = sink->write(sink->context, sink->line.text, sink->line.size);
    sink->line.size = 0;
    return status < 0 ? status : 0;
}

typedef unsigned long long ull;

static int machine_lines(struct abode *runtime, struct sink *sink)
{
    int status = 0;
    struct abode_node_info node;
    for (uint32_t i = 0; status == 0 && abode_machine_node_get(runtime, i, &node) == 0; i++) {
        add(&sink->line,
            "{\"kind\":\"node\",\"node\":%u,\"os_index\":%u,\"cpus\":%u,\"bytes\":%llu,"
            "\"frame_bytes\":%llu,\"frame_bytes_free\":%llu}",
            i, node.os_index, node.cpu_count, (ull)node.bytes_total, (ull)node.frame_bytes,
            (ull)node.frame_bytes_free);
        status = flush(sink);
    }
    struct abode_device_info device;
    for (uint32_t i = 0; status == 0 && abode_machine_device_get(runtime, i, &device) == 0; i++) {
        add(&sink->line, "{\"kind\":\"device\",\"device\":%u,\"node\":%d,", i, device.node);
        add_text(&sink->line, "name", device.name);
        add(&sink->line, ",");
        add_text(&sink->line, "pci", device.pci);
        add(&sink->line, ",");
        add_text(&sink->line, "path", device.path);
        add(&sink->line, ",\"bytes\":%llu,\"bytes_used\":%llu}", (ull)device.bytes_total,
            (ull)device.bytes_used);
        status = flush(sink);
    }
    return status;
}

static int support_line(struct abode *runtime, struct sink *sink)
{
    struct abode_support support;
    int status = abode_support_get(runtime, &support);
    if (status != 0) {
        return status;
    }
    add(&sink->line, "{\"kind\":\"support\",");
    add_text(&sink->line, "io_engine", support.io_engine_text);
    add(&sink->line, ",");
    add_text(&sink->line, "fixed_buffers", support.fixed_buffers_text);
    add(&sink->line, ",");
    add_text(&sink->line, "direct_io", support.direct_io_text);
    add(&sink->line, ",");
    add_text(&sink->line, "node_binding", support.node_binding_text);
    add(&sink->line, ",");
    add_text(&sink->line, "huge_pages", support.huge_pages_text);
    add(&sink->line, "}");
    return flush(sink);
}

static const char *kind_name(uint32_t kind)
{
    static const char *const NAMES[] = {"?", "paged", "window", "snapshot", "bytes"};
    return NAMES[kind < AB_COUNT(NAMES) ? kind : 0];
}

static int model_lines(struct abode *runtime, struct sink *sink)
{
    struct ab_kv *kv = runtime->kv;
    int status = 0;
    for (uint32_t m = 0; status == 0 && m < AB_MODELS_MAX; m++) {
        ab_lock_take(&kv->lock);
        const struct ab_model *model = &kv->models[m];
        bool known = model->known;
        if (known) {
            add(&sink->line, "{\"kind\":\"model\",\"model\":%u,", m);
            add_hex(&sink->line, "tag", model->tag, sizeof(model->tag));
            add(&sink->line, ",\"block_tokens\":%u,\"declared\":%s,\"components\":[",
                model->block_tokens, model->declared ? "true" : "false");
            for (uint32_t c = 0; c < model->component_count; c++) {
                const struct ab_component *component = &model->components[c];
                add(&sink->line,
                    "%s{\"kind\":\"%s\",\"block_bytes\":%llu,\"window_tokens\":%u,"
                    "\"snapshots_kept\":%u,\"planes\":%u}",
                    c == 0 ? "" : ",", kind_name(component->kind), (ull)component->block_bytes,
                    component->window_tokens, component->kept, component->plane_count);
            }
            add(&sink->line, "]}");
        }
        ab_lock_drop(&kv->lock);
        status = known ? flush(sink) : 0;
    }
    return status;
}

static void places_add(struct sink *sink, const struct abode_placement *placement)
{
    add(&sink->line, ",\"home_node\":%d,\"places\":[", placement->home_node);
    for (uint32_t i = 0; i < placement->place_count; i++) {
        const struct abode_place *place = &placement->places[i];
        add(&sink->line,
            "%s{\"tier\":\"%s\",\"node\":%d,\"device\":%u,\"bytes\":%llu,\"verified\":%s,"
            "\"pages_elsewhere\":%llu}",
            i == 0 ? "" : ",", place->tier == ABODE_TIER_MEMORY ? "memory" : "store", place->node,
            place->device, (ull)place->bytes, place->verified ? "true" : "false",
            (ull)place->pages_elsewhere);
    }
    add(&sink->line, "]");
}

static int session_line(struct abode *runtime, struct sink *sink, struct abode_session handle)
{
    struct abode_session_info info;
    struct abode_placement placement;
    if (abode_session_stat(runtime, handle, &info) != 0 ||
        abode_session_placement(runtime, handle, &placement) != 0) {
        return 0; /* deleted since */
    }
    static const struct abode_key anonymous;
    add(&sink->line, "{\"kind\":\"session\",\"session\":%llu,", (ull)handle.raw);
    if (memcmp(&info.name, &anonymous, sizeof(anonymous)) != 0) {
        add_hex(&sink->line, "name", info.name.bytes, sizeof(info.name.bytes));
        add(&sink->line, ",");
    }
    add(&sink->line,
        "\"model\":%u,\"tenant\":%u,\"attached\":%s,\"tokens\":%llu,\"restore_point\":%llu,"
        "\"stored_tokens\":%llu,\"bytes_state\":%llu,\"bytes_resident\":%llu,"
        "\"bytes_stored\":%llu",
        info.model, info.tenant, info.attached ? "true" : "false", (ull)info.token_count,
        (ull)info.restore_point, (ull)info.stored_tokens, (ull)info.bytes_state,
        (ull)info.bytes_resident, (ull)info.bytes_stored);
    places_add(sink, &placement);
    add(&sink->line, "}");
    return flush(sink);
}

static int session_lines(struct abode *runtime, struct sink *sink)
{
    struct ab_kv *kv = runtime->kv;
    int status = 0;
    for (uint32_t i = 0; status == 0; i++) {
        ab_lock_take(&kv->lock);
        bool end = i >= kv->session_high;
        struct abode_session handle = {0};
        if (!end && kv->sessions[i].state != AB_SESSION_FREE) {
            handle = ab_session_handle(kv, &kv->sessions[i]);
        }
        ab_lock_drop(&kv->lock);
        if (end) {
            break;
        }
        status = handle.raw == 0 ? 0 : session_line(runtime, sink, handle);
    }
    return status;
}

static int stats_line(struct abode *runtime, struct sink *sink)
{
    struct abode_stats stats;
    int status = abode_stats_get(runtime, &stats);
    if (status != 0) {
        return status;
    }
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"sessions", stats.session_count},
                  {"frames_total", stats.frames_total},
                  {"frames_free", stats.frames_free},
                  {"blocks_resident", stats.blocks_resident},
                  {"blocks_pinned", stats.blocks_pinned},
                  {"blocks_stored", stats.blocks_stored},
                  {"bytes_accepted", stats.bytes_accepted},
                  {"bytes_spilled", stats.bytes_spilled},
                  {"bytes_written", stats.bytes_written},
                  {"bytes_prepared", stats.bytes_prepared},
                  {"bytes_restored", stats.bytes_restored},
                  {"checksum_failures", stats.checksum_failures},
                  {"io_errors", stats.io_errors},
                  {"blocks_evicted", stats.blocks_evicted},
                  {"bytes_scrubbed", stats.bytes_scrubbed},
                  {"scrub_rounds", stats.scrub_rounds},
                  {"sessions_dropped", stats.sessions_dropped},
                  {"remote_attach_bytes", stats.remote_attach_bytes},
                  {"metadata_bytes", stats.metadata_bytes},
                  {"store_bytes_total", stats.store_bytes_total},
                  {"store_bytes_live", stats.store_bytes_live},
                  {"store_bytes_free", stats.store_bytes_free}};
    add(&sink->line, "{\"kind\":\"statistics\"");
    for (uint32_t i = 0; i < AB_COUNT(fields); i++) {
        add(&sink->line, ",\"%s\":%llu", fields[i].name, (ull)fields[i].value);
    }
    add(&sink->line, "}");
    return flush(sink);
}

int abode_inspect(struct abode *runtime, int (*write)(void *context, const char *text, size_t size),
                  void *context)
{
    struct ab_poison *before;
    if (write == NULL) {
        return -EINVAL;
    }
    int status = ab_enter(runtime, &before);
    if (status != 0) {
        return status;
    }
    struct sink *sink = runtime->os->alloc(runtime->os, sizeof(*sink), 64);
    if (sink == NULL) {
        return ab_leave(runtime, before, -ENOMEM);
    }
    sink->write = write;
    sink->context = context;
    int (*const parts[])(struct abode *, struct sink *) = {machine_lines, support_line, model_lines,
                                                           session_lines, stats_line};
    for (uint32_t i = 0; status == 0 && i < AB_COUNT(parts); i++) {
        status = parts[i](runtime, sink);
    }
    runtime->os->free(runtime->os, sink);
    return ab_leave(runtime, before, status);
}
