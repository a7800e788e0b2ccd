/*
 * cli_text.c - figures for people, tables, the progress bar, and JSON for programs.
 *
 * Sizes are powers of 1024 with their unit, rates are powers of ten (GB/s, as disks are sold).
 * Nothing here depends on colours or on a terminal: the bar is only drawn on one.
 */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define PROGRESS_QUIET_NS NS_PER_S /* nothing is drawn before this much time has gone by */
#define PROGRESS_REDRAW_NS 100000000ull
#define PROGRESS_BAR_CELLS 30

struct cli_text cli_bytes_text(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    struct cli_text result;
    double value = (double)bytes;
    uint32_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    const int digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    (void)snprintf(result.text, sizeof(result.text), "%.*f %s", digits, value, units[unit]);
    return result;
}

struct cli_text cli_count_text(uint64_t count)
{
    struct cli_text result = {{0}};
    char digits[CLI_TEXT_SIZE];
    const int length = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    int written = 0;
    for (int i = 0; i < length && written + 2 < CLI_TEXT_SIZE; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            result.text[written++] = ',';
        }
        result.text[written++] = digits[i];
    }
    result.text[written] = 0;
    return result;
}

struct cli_text cli_seconds_text(double seconds)
{
    static const struct {
        double from, scale;
        const char *unit;
    } units[] = {
        {172800, 1 / 86400.0, "days"},
        {7200, 1 / 3600.0, "h"},
        {120, 1 / 60.0, "min"},
        {1, 1, "s"},
        {1e-3, 1e3, "ms"},
        {1e-6, 1e6, "us"},
        {0, 1e9, "ns"},
    };
    struct cli_text result;
    uint32_t unit = 0;
    while (units[unit].from > seconds) {
        unit++;
    }
    const double value = seconds * units[unit].scale;
    const int digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    (void)snprintf(result.text, sizeof(result.text), "%.*f %s", digits, value, units[unit].unit);
    return result;
}

struct cli_text cli_number_text(double value, int digits)
{
    struct cli_text result;
    (void)snprintf(result.text, sizeof(result.text), "%.*f", digits, value);
    return result;
}

static int flush_failure; /* errno of the first flush that failed: stdio only keeps that one did */

void cli_flush(void)
{
    if (fflush(stdout) != 0 && flush_failure == 0) {
        flush_failure = errno;
    }
}

int cli_flush_failure(void)
{
    return flush_failure;
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t cli_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cli_cpu_now_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

bool cli_colours(FILE *stream)
{
    const char *terminal = getenv("TERM");
    const char *refused = getenv("NO_COLOR");
    const bool wanted = refused == NULL || refused[0] == 0;
    return wanted && terminal != NULL && strcmp(terminal, "dumb") != 0 && isatty(fileno(stream));
}

uint32_t cli_columns(FILE *stream)
{
    struct winsize size = {0};
    if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) {
        return 80;
    }
    return size.ws_col < 60 ? 60 : size.ws_col > 200 ? 200 : size.ws_col;
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* Columns that a UTF-8 text takes; the command prints no wide and no combining characters. */
static uint32_t text_columns(const char *text)
{
    uint32_t columns = 0;
    for (const char *byte = text; *byte != 0; byte++) {
        columns += ((unsigned char)*byte & 0xc0) != 0x80;
    }
    return columns;
}

void cli_table_init(struct cli_table *table, uint32_t column_count, const char *const *header)
{
    memset(table, 0, sizeof(*table));
    table->column_count = column_count;
    for (uint32_t i = 0; i < column_count; i++) {
        table->header[i] = header[i];
    }
}

void cli_table_row(struct cli_table *table, ...)
{
    if (table->row_count == table->row_capacity) {
        const uint32_t capacity = table->row_capacity == 0 ? 16 : 2 * table->row_capacity;
        char **cells = cli_alloc((size_t)capacity * table->column_count, sizeof(*cells));
        const size_t used = (size_t)table->row_count * table->column_count;
        for (size_t i = 0; i < used; i++) {
            cells[i] = table->cells[i];
        }
        free(table->cells);
        table->cells = cells;
        table->row_capacity = capacity;
    }
    char **row = &table->cells[(size_t)table->row_count * table->column_count];
    va_list texts;
    va_start(texts, table);
    for (uint32_t i = 0; i < table->column_count; i++) {
        const char *text = va_arg(texts, const char *);
        const size_t size = strlen(text) + 1;
        row[i] = cli_alloc(size, 1);
        memcpy(row[i], text, size);
    }
    va_end(texts);
    table->row_count++;
}

static void cell_print(FILE *stream, const char *text, uint32_t width, bool right, bool last)
{
    const int padding = (int)(width - text_columns(text));
    if (right) {
        (void)fprintf(stream, "%*s%s%s", padding, "", text, last ? "\n" : "  ");
    } else if (last) {
        (void)fprintf(stream, "%s\n", text);
    } else {
        (void)fprintf(stream, "%s%*s  ", text, padding, "");
    }
}

void cli_table_print(struct cli_table *table, FILE *stream, uint32_t indent)
{
    uint32_t widths[CLI_TABLE_COLUMNS_MAX] = {0};
    bool right[CLI_TABLE_COLUMNS_MAX] = {false};
    const uint32_t columns = table->column_count;
    for (uint32_t c = 0; c < columns; c++) {
        right[c] = table->header[c][0] == '>';
        table->header[c] += right[c];
        widths[c] = text_columns(table->header[c]);
        for (uint32_t r = 0; r < table->row_count; r++) {
            const uint32_t width = text_columns(table->cells[(size_t)r * columns + c]);
            widths[c] = width > widths[c] ? width : widths[c];
        }
    }
    (void)fprintf(stream, "%*s", (int)indent, "");
    for (uint32_t c = 0; c < columns; c++) {
        cell_print(stream, table->header[c], widths[c], right[c], c + 1 == columns);
    }
    for (uint32_t r = 0; r < table->row_count; r++) {
        (void)fprintf(stream, "%*s", (int)indent, "");
        for (uint32_t c = 0; c < columns; c++) {
            char *cell = table->cells[(size_t)r * columns + c];
            cell_print(stream, cell, widths[c], right[c], c + 1 == columns);
            free(cell);
        }
    }
    free(table->cells);
    memset(table, 0, sizeof(*table));
}

/* ---- progress -------------------------------------------------------------------------------- */

void cli_progress_start(struct cli_progress *progress, const char *label, bool quiet)
{
    const char *terminal = getenv("TERM");
    const bool dumb = terminal == NULL || strcmp(terminal, "dumb") == 0;
    *progress = (struct cli_progress){
        .label = label,
        .start_ns = cli_now_ns(),
        .terminal = !quiet && !dumb && isatty(STDERR_FILENO),
    };
}

void cli_progress_update(struct cli_progress *progress, uint64_t done, uint64_t total,
                         const char *remark)
{
    if (!progress->terminal || total == 0) {
        return;
    }
    const uint64_t now_ns = cli_now_ns();
    const bool early = now_ns - progress->start_ns < PROGRESS_QUIET_NS;
    if (early || now_ns - progress->drawn_ns < PROGRESS_REDRAW_NS) {
        return;
    }
    const double share = done >= total ? 1 : (double)done / (double)total;
    const uint32_t full = (uint32_t)(share * PROGRESS_BAR_CELLS);
    char bar[PROGRESS_BAR_CELLS + 1];
    for (uint32_t i = 0; i < PROGRESS_BAR_CELLS; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[PROGRESS_BAR_CELLS] = 0;
    (void)fprintf(stderr, "\r\033[K%s [%s] %3.0f %% %s", progress->label, bar, 100 * share, remark);
    (void)fflush(stderr);
    progress->drawn_ns = now_ns;
    progress->drawn = true;
}

void cli_progress_end(struct cli_progress *progress)
{
    if (progress->drawn) {
        (void)fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
        progress->drawn = false;
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

json_t *cli_json(json_t *object_or_null)
{
    if (object_or_null == NULL) {
        (void)fprintf(stderr, "abode: JSON: no memory, or a text that is not UTF-8\n");
        exit(CLI_FAILED);
    }
    return object_or_null;
}

int cli_json_print(json_t *object)
{
    (void)cli_json(object);
    const int result = json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (result != 0 || putchar('\n') == EOF) {
        return CLI_FAILED; /* main() says why: standard output is in error */
    }
    return CLI_OK;
}
