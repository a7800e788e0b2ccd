/*
 * replay_report.c - histograms, and the figures of a run as text and as one JSON object.
 */
#include "replay.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- histogram ------------------------------------------------------------------------------- */

static uint32_t bucket_of(uint64_t value)
{
    if (value < REPLAY_HISTOGRAM_SUB) {
        return (uint32_t)value;
    }
    const uint32_t shift = 63u - 5u - (uint32_t)__builtin_clzll(value); /* 2^5 buckets a power */
    return (shift + 1) * REPLAY_HISTOGRAM_SUB + (uint32_t)(value >> shift) % REPLAY_HISTOGRAM_SUB;
}

static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < REPLAY_HISTOGRAM_SUB) {
        return bucket;
    }
    const uint32_t shift = bucket / REPLAY_HISTOGRAM_SUB - 1;
    const uint64_t bottom = REPLAY_HISTOGRAM_SUB + bucket % REPLAY_HISTOGRAM_SUB;
    return ((bottom + 1) << shift) - 1;
}

void replay_histogram_add(struct replay_histogram *histogram, uint64_t value)
{
    histogram->counts[bucket_of(value)]++;
    histogram->count++;
    histogram->sum += value;
    histogram->max = value > histogram->max ? value : histogram->max;
}

uint64_t replay_histogram_at(const struct replay_histogram *histogram, double share)
{
    const double wanted = share * (double)histogram->count;
    uint64_t passed = 0;

    if (histogram->count == 0) {
        return 0;
    }
    for (uint32_t i = 0; i < REPLAY_HISTOGRAM_BUCKETS; i++) {
        passed += histogram->counts[i];
        if (histogram->counts[i] > 0 && (double)passed >= wanted) {
            const uint64_t top = bucket_top(i);
            return top < histogram->max ? top : histogram->max;
        }
    }
    return histogram->max;
}

/* ---- derived figures ------------------------------------------------------------------------- */

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

struct derived {
    double seconds, cpu_s, content_s, restore_gb, written_gb;
    double restore_gbps, restore_of_device, cpu_per_gb, written_per_read;
    double hit_rate, known_rate, token_rate, stall_s;
    double scale; /* as it came out: planes keep a byte at least */
    uint64_t bytes_restored, bytes_written, bytes_spilled, bytes_prepared, bytes_accepted;
};

static struct derived derive(const struct replay *replay)
{
    const struct replay_figures *const f = &replay->figures;
    const struct abode_stats *const a = &replay->stats_before, *const b = &replay->stats;
    struct derived d = {.seconds = (double)f->wall_ns / 1e9,
                        .cpu_s = (double)f->cpu_ns / 1e9,
                        .content_s = (double)f->content_ns / 1e9};

    d.scale =
        ratio((double)replay->geometry.token_bytes, (double)replay->geometry.token_bytes_real);
    d.bytes_restored = b->bytes_restored - a->bytes_restored;
    d.bytes_written = b->bytes_written - a->bytes_written;
    d.bytes_spilled = b->bytes_spilled - a->bytes_spilled;
    d.bytes_prepared = b->bytes_prepared - a->bytes_prepared;
    d.bytes_accepted = b->bytes_accepted - a->bytes_accepted;
    d.restore_gb = (double)d.bytes_restored / 1e9;
    d.written_gb = (double)d.bytes_written / 1e9;
    d.restore_gbps = ratio(d.restore_gb, (double)f->restore_busy_ns / 1e9);
    d.restore_of_device = ratio(d.restore_gbps, f->device_gbps);
    d.cpu_per_gb = ratio(d.cpu_s - d.content_s, d.restore_gb);
    d.written_per_read = ratio((double)d.bytes_written, (double)d.bytes_restored);
    d.hit_rate = ratio((double)f->blocks_hit, (double)f->blocks_asked);
    d.known_rate = ratio((double)f->blocks_known, (double)f->blocks_asked);
    d.token_rate = ratio((double)f->tokens_reused, (double)f->tokens_in);
    d.stall_s = (double)(f->wait_ns[REPLAY_WAIT_RESTORE] + f->wait_ns[REPLAY_WAIT_MEMORY] +
                         f->wait_ns[REPLAY_WAIT_WRITE]) /
                1e9;
    return d;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *histogram_json(const struct replay_histogram *histogram)
{
    return cli_json(json_pack("{s:I, s:f, s:f, s:f, s:f}", "count", (json_int_t)histogram->count,
                              "p50_ms", (double)replay_histogram_at(histogram, 0.5) / 1e6, "p99_ms",
                              (double)replay_histogram_at(histogram, 0.99) / 1e6, "p999_ms",
                              (double)replay_histogram_at(histogram, 0.999) / 1e6, "max_ms",
                              (double)histogram->max / 1e6));
}

static json_t *run_json(const struct replay *replay, const struct derived *d)
{
    const struct replay_options *const o = &replay->options;
    const struct geometry *const g = &replay->geometry;
    static const char *const verify[] = {"all", "sample", "none"};

    return cli_json(json_pack(
        "{s:s, s:s, s:s, s:s, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s}", "trace",
        o->trace_path, "format", trace_format_name(replay->trace.format), "face",
        replay->face->name, "model", g->name, "scale", d->scale, "bytes_per_token",
        (json_int_t)g->token_bytes, "bytes_per_token_real", (json_int_t)g->token_bytes_real,
        "bytes_per_restore_point", (json_int_t)g->fixed_bytes, "block_tokens",
        (json_int_t)g->block_tokens, "memory_bytes", (json_int_t)o->memory_bytes, "store_bytes",
        (json_int_t)o->store_bytes, "inflight", (json_int_t)o->inflight, "speed", o->speed,
        "verify", verify[o->verify], "io", cli_io_name(replay->support.io_engine)));
}

static json_t *hit_json(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;
    return cli_json(
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:f}", "blocks",
                  (json_int_t)f->blocks_asked, "blocks_hit", (json_int_t)f->blocks_hit,
                  "blocks_hit_memory", (json_int_t)(f->blocks_hit - f->blocks_hit_store),
                  "blocks_hit_store", (json_int_t)f->blocks_hit_store, "blocks_of_replies_kept",
                  (json_int_t)f->blocks_reply, "blocks_known", (json_int_t)f->blocks_known, "rate",
                  d->hit_rate, "rate_without_end", d->known_rate, "tokens_reused",
                  (json_int_t)f->tokens_reused, "tokens_recomputed", (json_int_t)f->tokens_computed,
                  "tokens_lost", (json_int_t)f->tokens_lost, "token_rate", d->token_rate));
}

static json_t *losses_json(const struct replay *replay)
{
    const struct replay_figures *const f = &replay->figures;
    return cli_json(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:I, s:I}", "attaches_partial",
        (json_int_t)f->attaches_partial, "sessions_lost", (json_int_t)f->sessions_lost,
        "sessions_dropped_by_host", (json_int_t)f->sessions_dropped, "sessions_dropped",
        (json_int_t)(replay->stats.sessions_dropped - replay->stats_before.sessions_dropped),
        "truncations", (json_int_t)f->truncations, "truncations_refused",
        (json_int_t)f->truncations_refused, "writes_failed", (json_int_t)f->writes_failed,
        "last_write_error", f->last_write_error, "checksum_failures",
        (json_int_t)replay->stats.checksum_failures, "io_errors",
        (json_int_t)replay->stats.io_errors));
}

static json_t *host_json(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;
    return cli_json(json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:f, s:f}", "stalled_seconds", d->stall_s,
        "stalled_restore_seconds", (double)f->wait_ns[REPLAY_WAIT_RESTORE] / 1e9,
        "stalled_memory_seconds", (double)f->wait_ns[REPLAY_WAIT_MEMORY] / 1e9,
        "stalled_write_seconds", (double)f->wait_ns[REPLAY_WAIT_WRITE] / 1e9,
        "waited_for_trace_seconds", (double)f->wait_ns[REPLAY_WAIT_TRACE] / 1e9, "refused_for_now",
        (json_int_t)f->blocked, "calls", (json_int_t)f->call_ns.count, "call_seconds",
        (double)f->call_ns.sum / 1e9, "call_p50_us",
        (double)replay_histogram_at(&f->call_ns, 0.5) / 1e3, "call_p999_us",
        (double)replay_histogram_at(&f->call_ns, 0.999) / 1e3, "call_max_us",
        (double)f->call_ns.max / 1e3));
}

static json_t *bytes_json(const struct derived *d)
{
    return cli_json(
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:f}", "accepted", (json_int_t)d->bytes_accepted,
                  "spilled", (json_int_t)d->bytes_spilled, "written", (json_int_t)d->bytes_written,
                  "prepared", (json_int_t)d->bytes_prepared, "restored",
                  (json_int_t)d->bytes_restored, "written_per_byte_read", d->written_per_read));
}

static json_t *restore_json(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;
    return cli_json(json_pack(
        "{s:o, s:o, s:f, s:f, s:{s:f, s:f, s:f, s:b}, s:f}", "from_store",
        histogram_json(&f->restore_ns), "from_memory", histogram_json(&f->memory_ns),
        "seconds_in_flight", (double)f->restore_busy_ns / 1e9, "gbps", d->restore_gbps, "device",
        "gbps", f->device_gbps, "min", f->device_gbps_min, "max", f->device_gbps_max, "direct",
        f->device_direct, "of_device", d->restore_of_device));
}

static int report_json(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;
    return cli_json_print(cli_json(json_pack(
        "{s:o, s:I, s:I, s:I, s:o, s:o, s:{s:f, s:f, s:f}, s:o, s:o, s:o, s:I, s:I, s:I, s:f, "
        "s:b}",
        "run", run_json(replay, d), "requests", (json_int_t)f->requests, "tokens_in",
        (json_int_t)f->tokens_in, "tokens_out", (json_int_t)f->tokens_out, "hit",
        hit_json(replay, d), "restore", restore_json(replay, d), "cpu", "seconds", d->cpu_s,
        "content_seconds", d->content_s, "seconds_per_gb_restored", d->cpu_per_gb, "bytes",
        bytes_json(d), "host", host_json(replay, d), "losses", losses_json(replay), "bytes_filled",
        (json_int_t)f->bytes_filled, "bytes_verified", (json_int_t)f->bytes_verified, "bytes_wrong",
        (json_int_t)f->bytes_wrong, "seconds", d->seconds, "interrupted", cli_interrupted != 0)));
}

/* ---- text ------------------------------------------------------------------------------------ */

static void line(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *name, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)printf("  %-24s", name);
    (void)vprintf(format, arguments);
    (void)printf("\n");
    va_end(arguments);
}

static void run_print(const struct replay *replay, const struct derived *d)
{
    const struct replay_options *const o = &replay->options;
    const struct geometry *const g = &replay->geometry;
    const struct replay_figures *const f = &replay->figures;

    (void)printf("%s (%s), %s face\n", o->trace_path, trace_format_name(replay->trace.format),
                 replay->face->name);
    line("state", "%s at scale %.4g: %s a token of %s, blocks of %u tokens", g->name, d->scale,
         cli_bytes_text(g->token_bytes).text, cli_bytes_text(g->token_bytes_real).text,
         g->block_tokens);
    if (g->fixed_bytes > 0) {
        line("", "%s a restore point", cli_bytes_text(g->fixed_bytes).text);
    }
    line("room", "%s of memory, %s of store; open state up to %s",
         cli_bytes_text(o->memory_bytes).text, cli_bytes_text(o->store_bytes).text,
         cli_bytes_text(replay->plan.live_tokens_max * g->token_bytes).text);
    line("engine", "%s, %u node%s, %u device%s", cli_io_name(replay->support.io_engine),
         replay->stats.node_count, replay->stats.node_count == 1 ? "" : "s",
         replay->stats.device_count, replay->stats.device_count == 1 ? "" : "s");
    line("requests", "%s in %s, %s tokens in, %s out", cli_count_text(f->requests).text,
         cli_seconds_text(d->seconds).text, cli_count_text(f->tokens_in).text,
         cli_count_text(f->tokens_out).text);
    if (replay->trace.starts_drawn) {
        line("", "starts of sessions are not recorded: spread over a day");
    }
}

static void hits_print(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;
    const uint64_t memory = f->blocks_hit - f->blocks_hit_store;

    line("hit rate", "%.4f of %s blocks (%.4f without end); from memory %.4f, from store %.4f",
         d->hit_rate, cli_count_text(f->blocks_asked).text, d->known_rate,
         ratio((double)memory, (double)f->blocks_asked),
         ratio((double)f->blocks_hit_store, (double)f->blocks_asked));
    line("tokens", "%s reused (%.4f), %s computed, of these %s had been held",
         cli_count_text(f->tokens_reused).text, d->token_rate,
         cli_count_text(f->tokens_computed).text, cli_count_text(f->tokens_lost).text);
}

static void latency_print(const char *name, const struct replay_histogram *histogram)
{
    if (histogram->count == 0) {
        line(name, "none");
        return;
    }
    line(name, "%s: p50 %s, p99 %s, p99.9 %s, max %s", cli_count_text(histogram->count).text,
         cli_seconds_text((double)replay_histogram_at(histogram, 0.5) / 1e9).text,
         cli_seconds_text((double)replay_histogram_at(histogram, 0.99) / 1e9).text,
         cli_seconds_text((double)replay_histogram_at(histogram, 0.999) / 1e9).text,
         cli_seconds_text((double)histogram->max / 1e9).text);
}

static void bytes_print(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;

    latency_print("restores from store", &f->restore_ns);
    latency_print("attaches in memory", &f->memory_ns);
    if (f->device_gbps > 0) {
        line("restore rate",
             "%.2f GB/s while restoring; device %.2f GB/s (%.2f to %.2f, pread%s, "
             "1 MiB, 8 at once): %.0f %%",
             d->restore_gbps, f->device_gbps, f->device_gbps_min, f->device_gbps_max,
             f->device_direct ? ", O_DIRECT" : ", no O_DIRECT: page cache",
             d->restore_of_device * 100);
    } else {
        line("restore rate", "%.2f GB/s while restoring; device not measured", d->restore_gbps);
    }
    line("written per byte read", "%.2f (%s written, %s restored, %s accepted)",
         d->written_per_read, cli_bytes_text(d->bytes_written).text,
         cli_bytes_text(d->bytes_restored).text, cli_bytes_text(d->bytes_accepted).text);
    line("CPU", "%.2f s, of these %.2f s for making and checking bytes; %.3f s per GB restored",
         d->cpu_s, d->content_s, d->cpu_per_gb);
}

static void host_print(const struct replay *replay, const struct derived *d)
{
    const struct replay_figures *const f = &replay->figures;

    line("host stalled", "%s: restores %s, memory %s, writes %s", cli_seconds_text(d->stall_s).text,
         cli_seconds_text((double)f->wait_ns[REPLAY_WAIT_RESTORE] / 1e9).text,
         cli_seconds_text((double)f->wait_ns[REPLAY_WAIT_MEMORY] / 1e9).text,
         cli_seconds_text((double)f->wait_ns[REPLAY_WAIT_WRITE] / 1e9).text);
    latency_print("calls that do not wait", &f->call_ns);
    line("sessions",
         "%s partial, %s lost, %s dropped for room, %s cut back, %s cuts refused, %s writes "
         "failed%s%s",
         cli_count_text(f->attaches_partial).text, cli_count_text(f->sessions_lost).text,
         cli_count_text(f->sessions_dropped).text, cli_count_text(f->truncations).text,
         cli_count_text(f->truncations_refused).text, cli_count_text(f->writes_failed).text,
         f->writes_failed > 0 ? ": " : "",
         f->writes_failed > 0 ? abode_strerror(f->last_write_error) : "");
    line("verified", "%s, %s wrong%s", cli_bytes_text(f->bytes_verified).text,
         cli_count_text(f->bytes_wrong).text,
         replay->options.verify == REPLAY_VERIFY_ALL      ? ""
         : replay->options.verify == REPLAY_VERIFY_SAMPLE ? " (a sample)"
                                                          : " (not asked for)");
}

int replay_report(struct replay *replay)
{
    const struct derived derived = derive(replay);

    if (replay->options.json) {
        return report_json(replay, &derived);
    }
    run_print(replay, &derived);
    hits_print(replay, &derived);
    bytes_print(replay, &derived);
    host_print(replay, &derived);
    if (cli_interrupted) {
        (void)printf("  interrupted: the figures are of the requests until then\n");
    }
    return CLI_OK;
}
