/*
 * cli.h - what the subcommands of `abode` share.
 *
 * A subcommand is one function, int cli_NAME(int argc, char **argv), with argv[0] = its name. It
 * parses its options with a table (cli_options_parse prints --help from the same table), talks to
 * the library through <abode/abode.h> only, and returns one of the three exit codes.
 *
 * Every failure is one line on standard error: `abode: what: why: mend`. Results go to standard
 * output; with --json the last line of standard output is one JSON object.
 *
 * Threads: the command is one thread; only cli_interrupted is written by a signal handler.
 */
#ifndef CLI_H
#define CLI_H

#include <abode/abode.h>

#include <jansson.h>
#include <stdio.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1, /* something that was asked for could not be done, or damage was found */
    CLI_USAGE = 2,  /* the command line is wrong; nothing was done */
};

/* ---- subcommands ---------------------------------------------------------------------------- */
int cli_demo(int argc, char **argv);
int cli_demo_host(int argc, char **argv); /* the child of demo that is killed; not in --help */
int cli_replay(int argc, char **argv);
int cli_probe(int argc, char **argv);
int cli_inspect(int argc, char **argv);
int cli_verify(int argc, char **argv);
int cli_bench(int argc, char **argv);

/* ---- errors (cli_options.c) ------------------------------------------------------------------ */
/* Print `abode: WHAT: abode_strerror(code): mend` and return CLI_FAILED. mend NULL: the usual one
 * for this code. `what` is a format. */
int cli_fail(int code, const char *mend, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
/* Print `abode: WHAT: mend` and return CLI_USAGE. */
int cli_usage(const char *mend, const char *what, ...) __attribute__((format(printf, 2, 3)));
/* The usual mend for a code; never NULL, may be "". */
const char *cli_mend(int code);

/* ---- options (cli_options.c) ----------------------------------------------------------------- */
enum cli_option_kind {
    CLI_FLAG,   /* bool *: set to true */
    CLI_SIZE,   /* uint64_t *: bytes, "4G", "512MiB", "1.5g"; powers of 1024 */
    CLI_COUNT,  /* uint64_t *: a whole number */
    CLI_NUMBER, /* double * */
    CLI_TEXT,   /* const char ** */
    CLI_LIST,   /* struct cli_list *: may be given more than once */
    CLI_CHOICE, /* uint64_t *: index in choices, a string "auto|uring|..." */
};
#define CLI_LIST_MAX 16
struct cli_list {
    const char *items[CLI_LIST_MAX];
    uint32_t count;
};
struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* short form, 0: none */
    enum cli_option_kind kind;
    void *target;         /* written when the option is given; holds the default before */
    const char *argument; /* its name in --help: "SIZE"; CLI_CHOICE: "auto|uring|threads" */
    const char *help;     /* one line */
    double min, max;      /* numbers: allowed range, both ends; both 0: any */
};
struct cli_syntax {
    const char *command;
    const char *arguments;       /* "STORE_DIR..." or "" */
    const char *summary;         /* what it does, may have several lines */
    const char *notes;           /* after the options; may be NULL */
    uint32_t rest_min, rest_max; /* how many arguments that are not options */
    const struct cli_option *options;
    uint32_t option_count;
};
#define CLI_OPTION_COUNT(options) (sizeof(options) / sizeof((options)[0]))
#define CLI_OPTIONS_MAX 40
/* Parse argv by the table. ret_rest is the index in argv of the first argument that is not an
 * option (options may stand anywhere). 0; 1: --help was printed, exit with CLI_OK; negative: the
 * message was printed, exit with CLI_USAGE. */
int cli_options_parse(const struct cli_syntax *syntax, int argc, char **argv, int *ret_rest)
    __attribute__((warn_unused_result));
/* "4G" and the like. 0 or -EINVAL (not a size) or -ERANGE. */
int cli_size_parse(const char *text, uint64_t *ret_bytes) __attribute__((warn_unused_result));

/* ---- text (cli_text.c) ----------------------------------------------------------------------- */
#define CLI_TEXT_SIZE 32
struct cli_text { /* a formatted figure, by value */
    char text[CLI_TEXT_SIZE];
};
struct cli_text cli_bytes_text(uint64_t bytes);   /* "1.50 GiB" */
struct cli_text cli_count_text(uint64_t count);   /* "1,234,567" */
struct cli_text cli_seconds_text(double seconds); /* "1.5 s", "320 us", "2.1 h" */
struct cli_text cli_number_text(double value, int digits);
/* Flush standard output; the first failure is kept, for main() to tell. */
void cli_flush(void);
int cli_flush_failure(void);   /* errno of it, 0: none */
uint64_t cli_now_ns(void);     /* CLOCK_MONOTONIC */
uint64_t cli_cpu_now_ns(void); /* CPU time of this process, all threads */
/* True where colours are welcome: a terminal, NO_COLOR not set, TERM not dumb. */
bool cli_colours(FILE *stream);
/* Columns of the terminal, 80 when it is none, within 60 .. 200. */
uint32_t cli_columns(FILE *stream);

#define CLI_TABLE_COLUMNS_MAX 12
struct cli_table { /* rows are kept, then printed with one width per column */
    uint32_t column_count;
    uint32_t row_count;
    uint32_t row_capacity;
    const char *header[CLI_TABLE_COLUMNS_MAX]; /* a leading '>' aligns the column to the right */
    char **cells;
};
void cli_table_init(struct cli_table *table, uint32_t column_count, const char *const *header);
/* column_count strings; copied. */
void cli_table_row(struct cli_table *table, ...);
/* Print and free. indent: blanks before each line. */
void cli_table_print(struct cli_table *table, FILE *stream, uint32_t indent);

/* A bar on standard error, drawn only on a terminal and only after a second. */
struct cli_progress {
    const char *label;
    uint64_t start_ns, drawn_ns;
    bool terminal, drawn;
};
void cli_progress_start(struct cli_progress *progress, const char *label, bool quiet);
void cli_progress_update(struct cli_progress *progress, uint64_t done, uint64_t total,
                         const char *remark);
void cli_progress_end(struct cli_progress *progress); /* wipes the bar */

/* One line of JSON on stdout; takes the reference. 0 or CLI_FAILED (message printed). */
int cli_json_print(json_t *object);
/* printf-like packing for values this program made itself: ends the program when memory is out. */
json_t *cli_json(json_t *object_or_null);

/* ---- host (cli_host.c) ------------------------------------------------------------------------ */
/* Zeroed memory; ends the program with a message when there is none. free() gives it back. */
void *cli_alloc(size_t count, size_t bytes);

/* Set by SIGINT, SIGTERM and SIGHUP after cli_signals_catch(): loops look at it and clean up. */
extern volatile int cli_interrupted;
void cli_signals_catch(void);

/* Log lines of the library: errors and warnings go to stderr as `abode: LINE`. */
struct cli_log {
    int level;           /* enum abode_log_level: print up to this */
    uint32_t line_count; /* printed */
};
void cli_log_line(void *log_context, int level, const char *line);

/* A store opened only to look at it: inspect and verify. */
struct cli_store {
    const char *const *paths;
    uint32_t path_count;
    uint32_t io;         /* enum abode_io */
    struct cli_log *log; /* lives as long as the runtime */
};
/* CLI_OK, or an exit code with the message printed. */
int cli_store_open(const struct cli_store *store, const char *command, struct abode **ret)
    __attribute__((warn_unused_result));

/* What open() asked for and what it got, a line each. */
#define CLI_SUPPORT_LINES 5
struct cli_support_line {
    char key[24];  /* for JSON */
    char name[24]; /* for people */
    char got[40];
    int32_t reason; /* 0, or why not better */
    char text[256]; /* reason and mend */
};
int cli_support_lines(const struct abode *runtime, struct cli_support_line *ret_lines)
    __attribute__((warn_unused_result));
/* degraded_only: only lines that have a reason. */
void cli_support_print(const struct cli_support_line *lines, bool degraded_only, FILE *stream);
json_t *cli_support_json(const struct cli_support_line *lines);

/* Options that more than one subcommand has. */
extern const char cli_io_choices[];   /* in the order of enum abode_io */
extern const char cli_huge_choices[]; /* in the order of enum abode_huge */
const char *cli_io_name(int io);
const char *cli_huge_name(int huge);

/* Poll until `op` has come back; its status. Other ops that finish meanwhile are dropped, so only
 * for hosts with one op in flight. */
int cli_op_wait(struct abode_queue *queue, struct abode_op *op) __attribute__((warn_unused_result));

/* A directory to work in. given NULL: a fresh one under TMPDIR, /var/tmp or /tmp; else `given`,
 * made if it is missing, and empty. close removes what was made in it unless keep. */
struct cli_scratch {
    char path[4096];
    bool made; /* the directory itself was made here */
    bool open;
};
/* As close to a fresh start, but inside `parent`, which may hold anything: for probe and bench. */
int cli_scratch_open_in(struct cli_scratch *scratch, const char *parent, uint64_t bytes_needed)
    __attribute__((warn_unused_result));
/* 0 or an exit code (message printed). bytes_needed: refuse where the file system has less. */
int cli_scratch_open(struct cli_scratch *scratch, const char *given, uint64_t bytes_needed)
    __attribute__((warn_unused_result));
void cli_scratch_close(struct cli_scratch *scratch, bool keep);

#endif
