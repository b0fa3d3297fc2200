/* SPDX-License-Identifier: BSD-3-Clause */
/* parapet: from words to a request by the command table, and from an answer to text or JSON. */
#include "host-agent/cli/cli.h"

#include "common/base/util.h"
#include "host-agent/cli/http.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define VERSION        "0.2"
#define DEFAULT_SOCKET "/run/parapet/agent.sock"

/* ---- complaints -------------------------------------------------------------------------------------------------- */

/* {"error": {...}} as the agent gives it: to stderr for people, to stdout as JSON. */
static void show_error(const struct cli *c, const json_t *error)
{
	static const char *const parts[] = {"object", "field", "reason"};
	const char *sep = "", *s;
	json_t *o;

	if (c->json) {
		o = json_pack("{s:O}", "error", error);
		json_dumpf(o, stdout, JSON_INDENT(2));
		puts("");
		json_decref(o);
		return;
	}
	fprintf(stderr, "parapet: ");
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		s = json_string_value(json_object_get(error, parts[i]));
		if (s && s[0]) {
			fprintf(stderr, "%s%s", sep, s);
			sep = ": ";
		}
	}
	s = json_string_value(json_object_get(error, "allowed"));
	if (s)
		fprintf(stderr, "\n  allowed: %s", s);
	fprintf(stderr, "\n");
}

int cli_complain(struct cli *c, const struct err *e, enum exit_code code)
{
	const char *split = strstr(e->reason, "; allowed: ");
	int len = split ? (int)(split - e->reason) : (int)strlen(e->reason);
	json_t *o = json_pack("{s:s, s:s, s:s, s:s%, s:s?}", "code",
		code == EXIT_USAGE ? "EUSAGE" : "EFAILED", "object", e->object, "field", e->field,
		"reason", e->reason, (size_t)len, "allowed",
		split ? split + strlen("; allowed: ") : NULL);

	if (o)
		show_error(c, o);
	else
		fprintf(stderr, "parapet: %s\n", err_text(e));
	json_decref(o);
	return code;
}

static int usage(struct cli *c, const char *object, const char *fmt, const char *word)
{
	struct err e = {0};
	char text[200];

	snprintf(text, sizeof(text), fmt, word);
	err_set(&e, -EINVAL, object, "", "%s", text);
	return cli_complain(c, &e, EXIT_USAGE);
}

static enum exit_code exit_of(const json_t *error, long status)
{
	const char *code = json_string_value(json_object_get(error, "code"));

	if (status == 400)
		return EXIT_REFUSED;
	if (status == 404)
		return EXIT_NOT_FOUND;
	if (status == 409 || status == 412)
		return EXIT_CONFLICT;
	if (status == 503 || (code && !strcmp(code, "EHOSTUNREACH")))
		return EXIT_NO_CARD;
	return EXIT_FAILED;
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

/* A query holds texts only. */
static json_t *as_query(const json_t *in)
{
	json_t *out = json_object(), *v;
	const char *name;

	json_object_foreach((json_t *)in, name, v)
	{
		if (json_is_string(v))
			json_object_set(out, name, v);
		else if (json_is_true(v))
			json_object_set_new(out, name, json_string("1"));
	}
	return out;
}

/* "base" and "no_migrate" belong to the query, whatever the rest is; so does "node" then. */
static json_t *take_query(json_t *request)
{
	json_t *base = json_object_get(request, "base"), *query = NULL;
	bool stay = json_is_true(json_object_get(request, "no_migrate"));

	if (base || stay) {
		query = json_object();
		if (base)
			json_object_set(query, "base", base);
		if (stay)
			json_object_set_new(query, "no_migrate", json_string("1"));
		if (json_object_get(request, "node"))
			json_object_set(query, "node", json_object_get(request, "node"));
		json_object_del(request, "base");
		json_object_del(request, "no_migrate");
	}
	return query;
}

int cli_show(struct cli *c, const struct cli_command *cmd, long status, json_t *answer)
{
	json_t *error = json_object_get(answer, "error");
	int rc = EXIT_OK;

	if (status != 200 || error) {
		show_error(c, error);
		rc = exit_of(error, status);
	} else if (c->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		puts("");
	} else {
		cmd->render(c, answer);
	}
	json_decref(answer);
	return rc;
}

int cli_request(struct cli *c, const struct cli_command *cmd)
{
	bool body = !strcmp(cmd->method, "POST") || !strcmp(cmd->method, "PATCH");
	json_t *query = body ? take_query(c->request) : as_query(c->request);
	json_t *answer = NULL;
	struct err e = {0};
	long status = 0;
	int rc;

	rc = http_call(c->socket, cmd->method, cmd->path, query, body ? c->request : NULL, &status,
		&answer, &e);
	json_decref(query);
	if (rc < 0)
		return cli_complain(c, &e, rc == -ECONNREFUSED ? EXIT_NO_AGENT : EXIT_FAILED);
	return cli_show(c, cmd, status, answer);
}

/* ---- words ----------------------------------------------------------------------------------------------------------- */

struct words {
	struct cli *c;
	int argc;
	char **argv;
	const char *noun, *verb;
	const struct cli_command *cmd;
	size_t nargs;
	bool help, version;
};

static const struct cli_option *find_option(
	const struct cli_option *list, const char *name, size_t len)
{
	for (; list && list->name; list++)
		if (strlen(list->name) == len && !strncmp(list->name, name, len))
			return list;
	return NULL;
}

static const struct cli_option *option_of(
	const struct words *w, const char *name, size_t len, bool *global)
{
	const struct cli_option *o = NULL;

	for (size_t i = 0; w->cmd && !o && i < ARRAY_LEN(w->cmd->options); i++)
		o = find_option(w->cmd->options[i], name, len);
	*global = !o;
	return o ? o : find_option(cli_globals, name, len);
}

static void add_to_list(json_t *request, const char *field, const char *value)
{
	json_t *list = json_object_get(request, field);

	if (!list) {
		list = json_array();
		json_object_set_new(request, field, list);
	}
	while (*value) {
		size_t len = strcspn(value, ",");

		json_array_append_new(list, json_stringn(value, len));
		value += len + (value[len] == ',');
	}
}

static int set_field(struct cli *c, const struct cli_option *o, const char *value)
{
	char buf[64];
	const char *field = cli_field(o, buf, sizeof(buf));

	if (o->type == OPT_FLAG)
		json_object_set_new(c->request, field, json_true());
	else if (!*value)
		json_object_set_new(c->request, field, json_null());
	else if (o->type == OPT_LIST)
		add_to_list(c->request, field, value);
	else if (json_object_set_new(c->request, field, json_string(value)))
		return usage(c, o->name, "a value that is not UTF-8", "");
	return 0;
}

static int set_global(struct words *w, const struct cli_option *o, const char *value)
{
	if (!strcmp(o->name, "json"))
		w->c->json = true;
	else if (!strcmp(o->name, "help"))
		w->help = true;
	else if (!strcmp(o->name, "version"))
		w->version = true;
	else if (!strcmp(o->name, "agent"))
		w->c->socket = value;
	else
		return set_field(w->c, o, value);
	return 0;
}

/* argv[*i] is an option; *i moves past its value. */
static int take_option(struct words *w, int *i)
{
	const char *word = w->argv[*i], *name = word + 2, *value;
	const struct cli_option *o;
	size_t len;
	bool global;

	if (!strcmp(word, "-h"))
		name = "help";
	else if (!strcmp(word, "-f"))
		name = "file";
	else if (strncmp(word, "--", 2) != 0)
		return usage(w->c, word, "unknown option; --help lists them%s", "");
	len = strcspn(name, "=");
	value = name[len] ? name + len + 1 : NULL;
	o = option_of(w, name, len, &global);
	if (!o)
		return usage(w->c, word, "unknown option; --help lists them%s", "");
	if (o->type == OPT_FLAG && value)
		return usage(w->c, word, "takes no value%s", "");
	if (o->type != OPT_FLAG && !value) {
		if (*i + 1 >= w->argc)
			return usage(w->c, word, "needs a value: %s", o->value);
		value = w->argv[++*i];
	}
	return global ? set_global(w, o, value) : set_field(w->c, o, value);
}

static int add_one(struct cli *c, const char *field, const char *word)
{
	json_t *list = json_object_get(c->request, field);

	if (!list) {
		list = json_array();
		json_object_set_new(c->request, field, list);
	}
	if (json_array_append_new(list, json_string(word)))
		return usage(c, field, "an argument that is not UTF-8%s", "");
	return 0;
}

static int take_argument(struct words *w, const char *word)
{
	const struct cli_argument *a = w->cmd->args;

	for (size_t n = 0; a && a->name && n < w->nargs; n++)
		a++;
	if (!a || !a->name)
		return usage(w->c, w->noun, "unexpected argument '%.80s'", word);
	if (a->many) {
		return add_one(w->c, a->field, word);
	}
	w->nargs++;
	if (json_object_set_new(w->c->request, a->field, json_string(word)))
		return usage(w->c, w->noun, "an argument that is not UTF-8", "");
	return 0;
}

static int take_word(struct words *w, const char *word)
{
	if (!w->noun) {
		if (!cli_find_noun(word))
			return usage(w->c, word, "unknown noun; allowed: see parapet help%s", "");
		w->noun = word;
		w->cmd = cli_find(word, NULL);
		return 0;
	}
	if (!w->cmd) {
		w->cmd = cli_find(w->noun, word);
		if (!w->cmd)
			return usage(
				w->c, word, "unknown verb; allowed: see parapet help %s", w->noun);
		w->verb = word;
		return 0;
	}
	return take_argument(w, word);
}

/* Options may stand anywhere; those of a command only behind its words. */
static int parse(struct words *w)
{
	bool rest = false;
	int rc = 0;

	for (int i = 1; !rc && i < w->argc; i++) {
		const char *word = w->argv[i];

		if (!rest && !strcmp(word, "--"))
			rest = true;
		else if (!rest && word[0] == '-' && word[1])
			rc = take_option(w, &i);
		else
			rc = take_word(w, word);
	}
	return rc;
}

static int missing_argument(struct words *w)
{
	const struct cli_argument *a = w->cmd->args;

	for (size_t n = 0; a && a->name && n < w->nargs; n++)
		a++;
	if (a && a->name && !a->optional && !(a->many && json_object_get(w->c->request, a->field)))
		return usage(w->c, w->cmd->noun, "%s is missing; --help tells more", a->name);
	return 0;
}

static int add_fixed(struct cli *c, const struct cli_command *cmd)
{
	json_t *fixed = cmd->fixed ? json_loads(cmd->fixed, 0, NULL) : NULL;

	if (fixed)
		json_object_update(c->request, fixed);
	json_decref(fixed);
	return 0;
}

static int run(struct words *w)
{
	if (w->version) {
		puts("parapet " VERSION);
		return EXIT_OK;
	}
	if (w->help || !w->noun) {
		if (w->cmd)
			help_command(w->cmd);
		else if (w->noun)
			help_noun(cli_find_noun(w->noun));
		else
			help_all();
		return w->help ? EXIT_OK : EXIT_USAGE;
	}
	if (!w->cmd) {
		help_noun(cli_find_noun(w->noun));
		return EXIT_USAGE;
	}
	if (missing_argument(w))
		return EXIT_USAGE;
	add_fixed(w->c, w->cmd);
	return w->cmd->run ? w->cmd->run(w->c, w->cmd) : cli_request(w->c, w->cmd);
}

int main(int argc, char **argv)
{
	const char *socket = getenv("PARAPET_AGENT");
	struct cli c = {.socket = socket && *socket ? socket : DEFAULT_SOCKET};
	struct words w = {.c = &c, .argc = argc, .argv = argv};
	int rc;

	c.request = json_object();
	if (!c.request || http_init() < 0) {
		fprintf(stderr, "parapet: out of memory\n");
		return EXIT_FAILED;
	}
	rc = parse(&w);
	if (!rc)
		rc = run(&w);
	json_decref(c.request);
	http_done();
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "parapet: writing the output failed\n");
		rc = rc ? rc : EXIT_FAILED;
	}
	return rc;
}
