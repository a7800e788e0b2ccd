/*
 * picture.c - the map of where every session lives, for a terminal.
 *
 *   +- node 0 - memory ------------------------------------+   a box per NUMA node and per device:
 *   | [########........] 1.1 of 1.5 GiB   verified         |   bytes of sessions, of what is there
 *   +------------------------------------------------------+
 *   one character per session, in the order of their numbers: how much of it is in memory and in
 *   the store. The character alone says it; colours only help.
 *
 * UTF-8 where the locale is, else ASCII. 80 columns are enough; up to 100 are used.
 */
#include "demo.h"

#include <langinfo.h>
#include <locale.h>
#include <string.h>

#define WIDTH_MAX 100
#define CELLS_STEP 10 /* a gap after so many cells, to count by */
#define LABEL_COLUMNS 12

enum cell { CELL_BOTH = 0, CELL_PART, CELL_STORE, CELL_MEMORY, CELL_DELETED, CELL_NONE };
struct cell_look {
    const char *ascii, *unicode;
    const char *colour; /* ANSI */
    const char *meaning;
};
static const struct cell_look cell_looks[] = {
    [CELL_BOTH] = {"#", "█", "32", "in memory and in the store"},
    [CELL_PART] = {"+", "▓", "33", "partly in memory, all in the store"},
    [CELL_STORE] = {".", "░", "34", "only in the store"},
    [CELL_MEMORY] = {"!", "!", "31", "not all in the store"},
    [CELL_DELETED] = {"x", "×", "90", "ended and deleted"},
    [CELL_NONE] = {" ", " ", "0", NULL},
};
#define CELL_COUNT (sizeof(cell_looks) / sizeof(cell_looks[0]))

struct canvas {
    FILE *stream;
    bool unicode, colours;
    uint32_t width;
};

static void rule(const struct canvas *canvas, const char *left, const char *right)
{
    (void)fputs(left, canvas->stream);
    for (uint32_t i = 2; i < canvas->width; i++) {
        (void)fputs(canvas->unicode ? "─" : "-", canvas->stream);
    }
    (void)fprintf(canvas->stream, "%s\n", right);
}

static uint32_t columns_of(const char *text)
{
    uint32_t columns = 0;
    for (; *text != 0; text++) {
        columns += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return columns;
}

static void box_top(const struct canvas *canvas, const char *title)
{
    (void)fprintf(canvas->stream, "%s %s ", canvas->unicode ? "┌─" : "+-", title);
    for (uint32_t i = 5 + columns_of(title); i < canvas->width; i++) {
        (void)fputs(canvas->unicode ? "─" : "-", canvas->stream);
    }
    (void)fprintf(canvas->stream, "%s\n", canvas->unicode ? "┐" : "+");
}

static void box_bottom(const struct canvas *canvas)
{
    rule(canvas, canvas->unicode ? "└" : "+", canvas->unicode ? "┘" : "+");
}

/* text may hold at most width - 4 columns; longer ones are cut by the caller */
static void box_line(const struct canvas *canvas, const char *text)
{
    const char *edge = canvas->unicode ? "│" : "|";
    const uint32_t columns = columns_of(text);
    const uint32_t room = canvas->width - 4;
    (void)fprintf(canvas->stream, "%s %s%*s %s\n", edge, text,
                  columns < room ? (int)(room - columns) : 0, "", edge);
}

static void bar_text(const struct canvas *canvas, double share, uint32_t cells, char *ret_text,
                     size_t capacity)
{
    const uint32_t full = share <= 0 ? 0 : share >= 1 ? cells : (uint32_t)(share * cells + 0.5);
    size_t used = 0;
    ret_text[0] = 0;
    for (uint32_t i = 0; i < cells && used + 8 < capacity; i++) {
        const bool on = i < full;
        const char *mark = canvas->unicode ? (on ? "█" : "░") : (on ? "#" : ".");
        used += (size_t)snprintf(ret_text + used, capacity - used, "%s", mark);
    }
}

struct place_sum {
    uint64_t bytes, bytes_verified, pages_elsewhere;
    uint32_t session_count;
};

static void place_add(const struct demo_session *session, uint32_t tier, uint32_t index,
                      struct place_sum *sum)
{
    uint32_t count = session->place.place_count;
    count = count < DEMO_PLACES_MAX ? count : DEMO_PLACES_MAX;
    bool here = false;
    for (uint32_t p = 0; p < count; p++) {
        const struct abode_place *place = &session->place.places[p];
        const uint32_t at = tier == ABODE_TIER_MEMORY ? (uint32_t)place->node : place->device;
        if (place->tier != tier || at != index || place->bytes == 0) {
            continue;
        }
        sum->bytes += place->bytes;
        sum->bytes_verified += place->verified ? place->bytes : 0;
        sum->pages_elsewhere += place->pages_elsewhere;
        here = true;
    }
    sum->session_count += here;
}

static struct place_sum place_sum(const struct demo_result *result, uint32_t tier, uint32_t index)
{
    struct place_sum sum = {0};
    for (uint32_t i = 0; i < result->workload.conversation_count; i++) {
        if (result->sessions[i].placed) {
            place_add(&result->sessions[i], tier, index, &sum);
        }
    }
    return sum;
}

/* Who vouches for it: the kernel, for all, for a part, or not. */
static void verified_text(const struct place_sum *sum, uint32_t tier, char *ret, size_t capacity)
{
    const char *witness = tier == ABODE_TIER_MEMORY ? "move_pages" : "FIEMAP";
    if (sum->bytes == 0) {
        (void)snprintf(ret, capacity, "no session here");
    } else if (sum->bytes_verified == sum->bytes) {
        (void)snprintf(ret, capacity, "verified by %s", witness);
    } else if (sum->bytes_verified == 0) {
        (void)snprintf(ret, capacity, "not verified: %s refused", witness);
    } else {
        (void)snprintf(ret, capacity, "%.0f %% verified by %s",
                       100.0 * (double)sum->bytes_verified / (double)sum->bytes, witness);
    }
    if (sum->pages_elsewhere > 0) {
        const size_t used = strlen(ret);
        (void)snprintf(ret + used, capacity - used, ", %llu pages elsewhere",
                       (unsigned long long)sum->pages_elsewhere);
    }
}

static void place_box(const struct canvas *canvas, const char *title, const struct place_sum *sum,
                      uint32_t tier, uint64_t used, uint64_t total)
{
    char bar[256], line[512], verified[96];
    const uint32_t cells = canvas->width - 4 - 30;
    bar_text(canvas, total == 0 ? 0 : (double)used / (double)total, cells, bar, sizeof(bar));
    (void)snprintf(line, sizeof(line), "%s  %s of %s", bar, cli_bytes_text(used).text,
                   cli_bytes_text(total).text);
    box_top(canvas, title);
    box_line(canvas, line);
    verified_text(sum, tier, verified, sizeof(verified));
    (void)snprintf(line, sizeof(line), "%u sessions, %s (shared rows for each): %s",
                   sum->session_count, cli_bytes_text(sum->bytes).text, verified);
    line[canvas->width - 4] = 0;
    box_line(canvas, line);
    box_bottom(canvas);
}

static void nodes_draw(const struct canvas *canvas, const struct demo_result *result)
{
    for (uint32_t i = 0; i < result->node_count; i++) {
        const struct abode_node_info *node = &result->nodes[i];
        if (node->frame_bytes == 0) {
            continue;
        }
        const struct place_sum sum = place_sum(result, ABODE_TIER_MEMORY, i);
        char title[96];
        if (node->cpu_count == 0) {
            (void)snprintf(title, sizeof(title), "memory of node %u (no CPUs)", node->os_index);
        } else {
            (void)snprintf(title, sizeof(title), "memory of node %u (%u CPUs)", node->os_index,
                           node->cpu_count);
        }
        place_box(canvas, title, &sum, ABODE_TIER_MEMORY,
                  node->frame_bytes - node->frame_bytes_free, node->frame_bytes);
    }
}

static void devices_draw(const struct canvas *canvas, const struct demo_result *result)
{
    for (uint32_t i = 0; i < result->device_count; i++) {
        const struct abode_device_info *device = &result->devices[i];
        const struct place_sum sum = place_sum(result, ABODE_TIER_STORE, i);
        char title[96], node[32] = "node not told by the kernel";
        if (device->node >= 0) {
            (void)snprintf(node, sizeof(node), "node %d", device->node);
        }
        (void)snprintf(title, sizeof(title), "store on %s%s%.13s, %s",
                       device->name[0] != 0 ? device->name : "an unnamed device",
                       device->pci[0] != 0 ? ", PCI " : "", device->pci, node);
        place_box(canvas, title, &sum, ABODE_TIER_STORE, device->bytes_used, device->bytes_total);
    }
}

static enum cell cell_of(const struct demo_session *session)
{
    const struct abode_session_info *info = &session->place.info;
    if (session->deleted) {
        return CELL_DELETED;
    }
    if (!session->placed) {
        return CELL_NONE;
    }
    if (info->bytes_stored < info->bytes_state) {
        return CELL_MEMORY;
    }
    if (info->bytes_resident == 0) {
        return CELL_STORE;
    }
    return info->bytes_resident < info->bytes_state ? CELL_PART : CELL_BOTH;
}

static void cell_draw(const struct canvas *canvas, enum cell cell)
{
    const struct cell_look *look = &cell_looks[cell];
    const char *mark = canvas->unicode ? look->unicode : look->ascii;
    if (canvas->colours && cell != CELL_NONE) {
        (void)fprintf(canvas->stream, "\033[%sm%s\033[0m", look->colour, mark);
    } else {
        (void)fputs(mark, canvas->stream);
    }
}

static void cells_draw(const struct canvas *canvas, const struct demo_result *result,
                       uint32_t first, uint32_t count)
{
    uint32_t per_row = (canvas->width - LABEL_COLUMNS) * CELLS_STEP / (CELLS_STEP + 1);
    per_row = per_row / CELLS_STEP * CELLS_STEP;
    for (uint32_t i = 0; i < count; i++) {
        const bool row_starts = i % per_row == 0;
        if (row_starts) {
            (void)fprintf(canvas->stream, "%s  %8u  ", i > 0 ? "\n" : "", first + i);
        } else if (i % CELLS_STEP == 0) {
            (void)fputc(' ', canvas->stream);
        }
        cell_draw(canvas, cell_of(&result->sessions[first + i]));
    }
    (void)fputc('\n', canvas->stream);
}

static void legend_draw(const struct canvas *canvas, const struct demo_result *result)
{
    uint32_t counts[CELL_COUNT] = {0};
    for (uint32_t i = 0; i < result->workload.session_count; i++) {
        counts[cell_of(&result->sessions[i])]++;
    }
    for (uint32_t i = 0; i < CELL_COUNT; i++) {
        if (cell_looks[i].meaning != NULL && counts[i] > 0) {
            (void)fputs("  ", canvas->stream);
            cell_draw(canvas, i);
            (void)fprintf(canvas->stream, "  %5u  %s\n", counts[i], cell_looks[i].meaning);
        }
    }
    if (counts[CELL_NONE] > 0) {
        (void)fprintf(canvas->stream, "     %5u  not begun\n", counts[CELL_NONE]);
    }
}

void picture_print(const struct demo_result *result, FILE *stream)
{
    (void)setlocale(LC_CTYPE, "");
    const uint32_t columns = cli_columns(stream);
    const struct canvas canvas = {
        .stream = stream,
        .unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
        .colours = cli_colours(stream),
        .width = (columns < WIDTH_MAX ? columns : WIDTH_MAX) - 1,
    };
    (void)fprintf(stream, "\nwhere every session lives\n");
    nodes_draw(&canvas, result);
    devices_draw(&canvas, result);
    (void)fprintf(stream, "\n");
    cells_draw(&canvas, result, 0, result->workload.session_count);
    legend_draw(&canvas, result);
    if (result->support_known) {
        cli_support_print(result->support, true, stream);
    }
}

/* ---- the list -------------------------------------------------------------------------------- */

static void places_text(const struct demo_session *session, char *ret, size_t capacity)
{
    uint32_t count = session->place.place_count;
    count = count < DEMO_PLACES_MAX ? count : DEMO_PLACES_MAX;
    size_t used = 0;
    ret[0] = 0;
    for (uint32_t i = 0; i < count && used < capacity; i++) {
        const struct abode_place *place = &session->place.places[i];
        const bool memory = place->tier == ABODE_TIER_MEMORY;
        const int at = memory ? place->node : (int)place->device;
        used += (size_t)snprintf(ret + used, capacity - used, "%s%s %d%s", i > 0 ? ", " : "",
                                 memory ? "node" : "device", at, place->verified ? "" : " ?");
    }
}

void list_print(const struct demo_result *result, FILE *stream)
{
    static const char *const header[] = {">session", "kind",       ">turns",    ">tokens",
                                         ">state",   ">in memory", ">in store", "where (? unsure)"};
    struct cli_table table;
    cli_table_init(&table, 8, header);
    for (uint32_t i = 0; i < result->workload.conversation_count; i++) {
        const struct demo_session *session = &result->sessions[i];
        const struct abode_session_info *info = &session->place.info;
        char places[128];
        if (!session->placed) {
            continue;
        }
        places_text(session, places, sizeof(places));
        cli_table_row(&table, cli_number_text(i, 0).text,
                      conversation_kind_name(result->workload.conversations[i].kind),
                      cli_number_text(session->turns_acknowledged, 0).text,
                      cli_count_text(info->token_count).text,
                      cli_bytes_text(info->bytes_state).text,
                      cli_bytes_text(info->bytes_resident).text,
                      cli_bytes_text(info->bytes_stored).text, places);
    }
    (void)fprintf(stream, "\n");
    cli_table_print(&table, stream, 0);
}
