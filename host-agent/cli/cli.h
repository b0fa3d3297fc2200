/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command table: every noun, verb, argument and option of `parapet` is described once, in commands.c. Parsing, help at
 * every level, the man page and shell completion are all made from it.
 *
 * A command says which request it is (method, path) and where its arguments and options go (fields); most need
 * no code of their own. A render function shows the agent's answer; with --json the answer itself is printed.
 * Thread: one. Ownership: constant tables; json_t belong to their holder.
 */
#ifndef HOST_AGENT_CLI_CLI_H
#define HOST_AGENT_CLI_CLI_H

#include "common/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum exit_code {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_REFUSED = 4,
	EXIT_CONFLICT = 5,
	EXIT_NO_AGENT = 6,
	EXIT_NO_CARD = 7,
};

struct exit_text {
	enum exit_code code;
	const char *text;
};
extern const struct exit_text cli_exits[]; /* ended by text NULL */

enum opt_type {
	OPT_TEXT, /* "" clears the field */
	OPT_LIST, /* may be repeated, or hold commas */
	OPT_FLAG, /* no value: true */
};

struct cli_option {
	const char *name; /* without "--" */
	const char *value; /* placeholder; NULL for OPT_FLAG */
	const char *help;
	const char *field; /* of the request; NULL: the name with '_' for '-' */
	enum opt_type type;
};

struct cli_argument {
	const char *name; /* placeholder */
	const char *field;
	bool optional;
	bool many; /* the last one: takes all that follow, as a list */
};

struct cli;
struct cli_command;

/* Shows an answer. */
typedef void (*cli_render_fn)(struct cli *c, const json_t *answer);
/* A command that is more than one request. Returns an exit code. */
typedef int (*cli_run_fn)(struct cli *c, const struct cli_command *cmd);

struct cli_command {
	const char *noun, *verb; /* verb NULL: the noun is the command */
	const char *summary;
	const struct cli_argument *args; /* ended by name NULL; may be NULL */
	const struct cli_option *options[3]; /* lists, each ended by name NULL */
	const char *method, *path;
	const char *fixed; /* JSON object merged into the request, or NULL */
	cli_render_fn render;
	cli_run_fn run; /* instead of method and path */
	const char *notes; /* further help */
};

struct cli_noun {
	const char *name, *summary;
};

extern const struct cli_noun cli_nouns[]; /* ended by name NULL */
extern const struct cli_command cli_commands[]; /* ended by noun NULL */
extern const struct cli_option cli_globals[];

struct cli {
	bool json;
	const char *socket;
	json_t *request; /* fields by arguments and options */
};

/* NULL where there is none. */
const struct cli_command *cli_find(const char *noun, const char *verb);
const struct cli_noun *cli_find_noun(const char *name);
/* The field an option fills. buf is used where it is not named. */
const char *cli_field(const struct cli_option *o, char *buf, size_t size);

/* Sends the command's request and shows the answer. */
int cli_request(struct cli *c, const struct cli_command *cmd);
/* Shows an answer that has come; takes it over. */
int cli_show(struct cli *c, const struct cli_command *cmd, long status, json_t *answer);
int cli_complain(struct cli *c, const struct err *e, enum exit_code code);

/* help.c */
int help_run(struct cli *c, const struct cli_command *cmd);
int completion_run(struct cli *c, const struct cli_command *cmd);
void help_command(const struct cli_command *cmd);
void help_noun(const struct cli_noun *n);
void help_all(void);

/* special.c */
int apply_run(struct cli *c, const struct cli_command *cmd);
int events_run(struct cli *c, const struct cli_command *cmd);
int explain_run(struct cli *c, const struct cli_command *cmd);
int vm_show_run(struct cli *c, const struct cli_command *cmd);
int flash_show_run(struct cli *c, const struct cli_command *cmd);
int flash_replace_run(struct cli *c, const struct cli_command *cmd);

/* attach.c */
int vm_attach_run(struct cli *c, const struct cli_command *cmd);

/* takeover.c */
int pool_open_run(struct cli *c, const struct cli_command *cmd);
int pool_import_run(struct cli *c, const struct cli_command *cmd);

/* top.c */
int top_run(struct cli *c, const struct cli_command *cmd);

/* task.c */
int task_watch_run(struct cli *c, const struct cli_command *cmd);

#endif
